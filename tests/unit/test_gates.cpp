// SPDX-License-Identifier: GPL-2.0-or-later
//
// The scripts of the initramfs that let boot go on only when the raw main of no bare set can be
// taken for root: each run with stand-ins for remapsetup and for what its generator provides. That
// the generators run them in time, the boot tests show.
#include "catch.hpp"
#include "scratch.hpp"

namespace {

void replace_all(std::string& text, const std::string& from, const std::string& to) {
    for (std::size_t at = text.find(from); at != std::string::npos;
         at = text.find(from, at + to.size())) {
        text.replace(at, from.size(), to);
    }
}

/// Exit codes of the stand-ins: what ends a boot for good.
constexpr int many_shells = 42;
constexpr int asleep = 43;
constexpr int died = 44;

/// remapsetup takes its exit codes for `open` from the file "codes", the last one for ever, and
/// those for `probe` from $probed. A shell that is left for the third time ends the test.
const char* const prelude = R"sh(
remapsetup() {
    echo "$*"
    [ "$1" = open ] || return "$probed"
    read -r code <codes
    [ "$(wc -l <codes)" -eq 1 ] || sed -i 1d codes
    return "$code"
}
shell() {
    echo "shell: $*"
    echo >>shells
    [ "$(wc -l <shells)" -lt 3 ] || exit 42
}
panic() { shell "$@"; }
wait_for_udev() { :; }
resolve_device() { [ -n "$1" ] && echo "$1"; }
getarg() { echo "$timeout"; }
getargbool() { [ -n "$with_shell" ]; }
emergency_shell() { [ -n "$with_shell" ] || exit 1; shell "$@"; }
warn() { echo "$*"; }
die() { echo "$*"; exit 44; }
sleep() { exit 43; }
)sh";

struct Boot {
    std::string script;
    std::string codes = "0\n";
    std::string settings = {};
    std::string command_line = "quiet";
    bool has_tools = true;
};

class Gate {
  public:
    explicit Gate(const Boot& boot) {
        std::string script = scratch::slurp(std::string(REMAP_SOURCE_DIR) + "/" + boot.script);
        REQUIRE(script.find("/usr/sbin/remapsetup") != std::string::npos);
        replace_all(script, "/usr/sbin/remapsetup", "remapsetup");
        replace_all(script, ". /scripts/functions", ":");
        replace_all(script, "/proc/cmdline", "cmdline");
        replace_all(script, "/conf/param.conf", "param.conf");
        replace_all(script, "/etc/remaptab", "remaptab");
        scratch::spill(folder_.file("codes"), boot.codes);
        if (boot.has_tools) {
            scratch::make_program(folder_.file("remapsetup"));
        }
        scratch::spill(folder_.file("cmdline"), boot.command_line + "\n");
        scratch::spill(folder_.file("script"), "cd " + folder_.path().string() +
                                                   " || exit 99\nprobed=2\n" + boot.settings +
                                                   "\n" + prelude + script);
        result = scratch::run({"sh", folder_.file("script")});
        INFO(result.out << result.err);
        CHECK(result.err.empty());
    }

    bool said(const std::string& text) const { return result.out.find(text) != std::string::npos; }
    std::string param_conf() const { return scratch::slurp(folder_.file("param.conf")); }

    scratch::Result result;

  private:
    scratch::Folder folder_;
};

const char* const initramfs_tools = "initramfs-tools/scripts/init-premount/remap";
const char* const local_premount = "initramfs-tools/scripts/local-premount/remap";
const char* const dracut = "dracut/56remap/remap-gate.sh";
const std::string ask = "open --all --bare\n";

}  // namespace

TEST_CASE("The gates let pass when all bare sets are open", "[gate]") {
    for (const char* script : {initramfs_tools, dracut}) {
        INFO(script);
        const Gate gate({script});
        CHECK(gate.result.code == 0);
        CHECK(gate.said(ask));
        CHECK_FALSE(gate.said("--wait"));
        CHECK_FALSE(gate.said("shell"));
        // A set that opens in time needs no shell either.
        const Gate late({script, "1\n0\n", "with_shell=y"});
        CHECK(late.result.code == 0);
        CHECK(late.said("open --all --bare --wait 30\n"));
        CHECK_FALSE(late.said("shell"));
    }
}

TEST_CASE("The gates hold, shell after shell, as long as a bare set is not open", "[gate]") {
    for (const char* script : {initramfs_tools, dracut}) {
        // Nor do they pass when it could not be told.
        for (const char* codes : {"1\n", "8\n", "16\n", "127\n"}) {
            INFO(script << codes);
            const Gate gate({script, codes, "with_shell=y"});
            CHECK(gate.result.code == many_shells);
            CHECK(gate.said("shell: remap: a bare set is not open"));
            CHECK(gate.said("--wait 0\n"));
        }
        const Gate mended({script, "1\n1\n0\n", "with_shell=y"});
        CHECK(mended.result.code == 0);
        CHECK(mended.said("shell"));
    }
}

TEST_CASE("dracut's gate is never left where there is no shell", "[gate]") {
    // What ends the hook has systemd mount root.
    CHECK(Gate({dracut, "1\n", "DRACUT_SYSTEMD=1"}).result.code == asleep);
    CHECK(Gate({dracut, "1\n"}).result.code == died);
}

TEST_CASE("The gate lets pass an initramfs that got its scripts but no tools", "[gate]") {
    const Gate gate({initramfs_tools, "127\n", "", "quiet", false});
    CHECK(gate.result.code == 0);
    CHECK(gate.result.out.empty());
    // but not if it knows of a set
    const Gate torn({initramfs_tools, "127\n", ": >remaptab", "quiet", false});
    CHECK(torn.result.code == many_shells);
}

TEST_CASE("The gates wait as long as the kernel command line says", "[gate]") {
    const Gate given({initramfs_tools, "1\n0\n", "", "quiet rd.remap.timeout=7"});
    CHECK(given.said("--wait 7\n"));
    CHECK(given.param_conf() == "ROOTDELAY=7\n");
    CHECK(Gate({initramfs_tools, "1\n0\n", "ROOTDELAY=60"}).said("--wait 60\n"));
    CHECK(Gate({initramfs_tools, "1\n0\n", "ROOTDELAY=6"}).said("--wait 30\n"));
    CHECK(Gate({dracut, "1\n0\n", "timeout=7"}).said("--wait 7\n"));
}

TEST_CASE("Root is not mounted from a raw main, whatever the sets are", "[gate]") {
    const Gate raw({local_premount, "0\n", "probed=0; ROOT=/dev/sda2"});
    CHECK(raw.result.code == many_shells);
    CHECK(raw.said("probe --bare /dev/sda2\n"));
    CHECK(Gate({local_premount, "0\n", "ROOT=/dev/dm-0"}).result.code == 0);
    CHECK(Gate({local_premount, "0\n", "probed=0"}).result.code == 0);  // not there yet

    const std::string root = "root=block:/dev/sda2; probed=0; with_shell=y";
    const Gate hook({dracut, "0\n", root});
    CHECK(hook.result.code == many_shells);
    CHECK(hook.said("probe --bare /dev/sda2\n"));
}

namespace {

struct Ran {
    scratch::Result result;
    std::size_t slept = 0;  ///< calls of sleep
    std::string cmdline_conf;
};

/// Runs a script whose system is a folder: /proc, /etc/cmdline.d, remaptab.
Ran run_in_folder(const std::string& path, const std::string& before) {
    const scratch::Folder folder;
    std::string script = scratch::slurp(std::string(REMAP_SOURCE_DIR) + "/" + path);
    replace_all(script, "/proc/[0-9]", "proc/[0-9]");
    replace_all(script, "/etc/cmdline.d/", "");
    replace_all(script, "/etc/remaptab", "remaptab");
    replace_all(script, "/usr/share/initramfs-tools/hook-functions", "./hook-functions");
    scratch::spill(folder.file("hook-functions"), "");
    scratch::spill(folder.file("script"),
                   "cd " + folder.path().string() + " || exit 99\n" + before + "\n" + script);
    Ran ran;
    ran.result = scratch::run({"sh", folder.file("script")});
    for (const char c : scratch::slurp(folder.file("slept"))) {
        ran.slept += c == '\n' ? 1 : 0;
    }
    ran.cmdline_conf = scratch::slurp(folder.file("56remap.conf"));
    return ran;
}

}  // namespace

TEST_CASE("init-bottom waits until udevd is gone, but not for ever", "[gate]") {
    const std::string system = R"sh(
        mkdir -p proc/1 proc/7 proc/self
        echo init >proc/1/comm
        echo "$daemon" >proc/7/comm
        sleep() {
            echo >>slept
            [ "$(wc -l <slept)" -ne 3 ] || $third
        }
    )sh";
    const char* const script = "initramfs-tools/scripts/init-bottom/remap";
    for (const char* name : {"systemd-udevd", "udevd"}) {
        const auto ran =
            run_in_folder(script, "daemon=" + std::string(name) + " third='rm -r proc/7'" + system);
        CHECK(ran.result.code == 0);
        CHECK(ran.result.err.empty());
        CHECK(ran.slept == 3);
    }
    const auto stays = run_in_folder(script, "daemon=systemd-udevd third=:" + system);
    CHECK(stays.result.code == 0);
    CHECK(stays.slept == 100);
    CHECK(run_in_folder(script, "daemon=kthreadd third=:" + system).slept == 0);
}

TEST_CASE("dracut's retry gets no more than a number from rd.remap.timeout=", "[gate]") {
    const std::string system = R"sh(
        getarg() { case $1 in rd.remap.timeout=) echo "$given" ;; *) [ -n "$retry" ] ;; esac; }
        warn() { echo "$*"; }
    )sh";
    const auto run = [&](const std::string& given, const char* retry = "") {
        return run_in_folder("dracut/56remap/parse-remap.sh",
                             "given='" + given + "' retry=" + retry + system);
    };
    CHECK(run("20").cmdline_conf == "rd.retry=20\n");
    CHECK(run("20").result.out.empty());
    CHECK(run("20", "5").cmdline_conf.empty());
    CHECK(run("").cmdline_conf.empty());
    for (const char* wrong : {"soon", "-1", "5 init=/bin/sh", "1.5"}) {
        const auto ran = run(wrong);
        INFO(wrong);
        CHECK(ran.cmdline_conf.empty());
        CHECK(ran.result.out.find(std::string("rd.remap.timeout=") + wrong +
                                  ": expected seconds") != std::string::npos);
    }
}

TEST_CASE("The hook fails when the module does not get into a host's initramfs that needs it",
          "[gate]") {
    const std::string system = R"sh(
        version=6.1 DESTDIR=$PWD/image
        mkdir -p "$DESTDIR/lib/modules"
        findmnt() { return 1; }
        modinfo() { [ -n "$has" ]; }
        force_load() { [ -z "$copies" ] || : >"$DESTDIR/lib/modules/$1.ko.xz"; }
        copy_exec() { echo "$1"; }
        copy_file() { echo "$2"; }
    )sh";
    const auto run = [&](const std::string& settings) {
        return run_in_folder("initramfs-tools/hooks/remap", settings + system).result;
    };
    const std::string listed = "echo 'data UUID=x' >remaptab; ";
    const auto copied = run(listed + "has=y copies=y");
    CHECK(copied.code == 0);
    CHECK(copied.err.empty());
    CHECK(copied.out.find("remapsetup") != std::string::npos);
    CHECK(copied.out.find("remaptab") != std::string::npos);
    // Debian 13 copies it later.
    CHECK(run(listed + "has=y copies= __MODULES_TO_ADD=queue").code == 0);
    for (const char* fault : {"has= copies=y", "has=y copies="}) {
        const auto needed = run(listed + fault);
        CHECK(needed.code == 1);
        CHECK(needed.err.find("E: remap: ") == 0);
        CHECK(needed.err.find("it could not boot") != std::string::npos);
        const auto not_needed = run(std::string("echo '# none' >remaptab; ") + fault);
        CHECK(not_needed.code == 0);
        CHECK(not_needed.err.find("W: remap: ") == 0);
        CHECK(not_needed.out.empty());
    }
}
