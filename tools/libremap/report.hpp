// SPDX-License-Identifier: GPL-2.0-or-later
//
// One description of what is to be shown drives text and JSON, so the two cannot drift apart.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <memory>
#include <string>
#include <vector>

namespace remap {

/// Receives a tree of named values. Names are JSON keys; text shows them with spaces.
class Emitter {
  public:
    virtual ~Emitter() = default;

    virtual void begin_object(const std::string& name) = 0;
    virtual void end_object() = 0;
    virtual void begin_list(const std::string& name) = 0;
    virtual void end_list() = 0;
    virtual void text(const std::string& name, const std::string& value) = 0;
    virtual void number(const std::string& name, std::uint64_t value) = 0;
    virtual void boolean(const std::string& name, bool value) = 0;
    /// A number with the unit that text shows after it ("sectors", "blocks").
    virtual void quantity(const std::string& name, std::uint64_t value, const char* unit) = 0;
    /// Unix seconds: JSON a number, text a date.
    virtual void time(const std::string& name, std::uint64_t seconds) = 0;
    /// Ends the output. No call may follow.
    virtual void finish() = 0;
};

/// JSON, streamed; an object in a list is on one line of its own.
class JsonEmitter : public Emitter {
  public:
    explicit JsonEmitter(std::ostream& out);
    void begin_object(const std::string& name) override;
    void end_object() override;
    void begin_list(const std::string& name) override;
    void end_list() override;
    void text(const std::string& name, const std::string& value) override;
    void number(const std::string& name, std::uint64_t value) override;
    void boolean(const std::string& name, bool value) override;
    void quantity(const std::string& name, std::uint64_t value, const char* unit) override;
    void time(const std::string& name, std::uint64_t seconds) override;
    void finish() override;

  private:
    struct Level {
        bool list = false;
        bool compact = false;
        bool first = true;
    };
    void begin();
    void before(const std::string& name);
    void close(char bracket);

    std::ostream& out_;
    bool begun_ = false;
    std::vector<Level> levels_;
};

/// Indented "name: value" lines; an object in a list is one line.
class TextEmitter : public Emitter {
  public:
    explicit TextEmitter(std::ostream& out);
    void begin_object(const std::string& name) override;
    void end_object() override;
    void begin_list(const std::string& name) override;
    void end_list() override;
    void text(const std::string& name, const std::string& value) override;
    void number(const std::string& name, std::uint64_t value) override;
    void boolean(const std::string& name, bool value) override;
    void quantity(const std::string& name, std::uint64_t value, const char* unit) override;
    void time(const std::string& name, std::uint64_t seconds) override;
    void finish() override;

  private:
    struct Level {
        bool list = false;
        bool line = false;
        bool first = true;
    };
    void value(const std::string& name, const std::string& shown);

    std::ostream& out_;
    std::vector<Level> levels_;
};

/// `text` without anything that could drive a terminal: control characters, newline among them, and
/// bytes that are not UTF-8 become "?".
std::string printable(const std::string& text);

/// `text` as a JSON string with quotes. Bytes that are not UTF-8 become U+FFFD.
std::string json_string(const std::string& text);

/// While it lives, std::cout is written in large pieces and the reason of a failure is kept.
class StandardOutput {
  public:
    StandardOutput();
    StandardOutput(const StandardOutput&) = delete;
    StandardOutput& operator=(const StandardOutput&) = delete;
    ~StandardOutput();

    /// Writes out what is left. Throws Error (operational), with the reason, if anything written to
    /// standard output did not get there.
    void finish();

  private:
    class Redirect;
    std::unique_ptr<Redirect> redirect_;
};

/// The same for plain std::cout: throws Error (operational) if anything did not get there.
void finish_stdout();

}  // namespace remap
