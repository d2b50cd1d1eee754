// SPDX-License-Identifier: GPL-2.0-or-later
#include "forensic_verbs.hpp"

namespace remap_dump {
namespace {

void add_scan(CLI::App& app, ScanVerb& verb, std::function<int()>& run) {
    CLI::App* sub =
        app.add_subcommand("scan", "Search a whole device for structures of ours, lost ones too");
    sub->add_flag("--json", verb.json, "Print JSON");
    sub->add_option("DEVICE", verb.device, "A block device or an image file")->required();
    sub->footer("Examples:\n  remap-dump scan /dev/sdb1\n  remap-dump scan --json disk.img");
    sub->callback([&] { run = [&] { return run_scan(verb); }; });
}

void add_hexdump(CLI::App& app, HexdumpVerb& verb, std::function<int()>& run) {
    CLI::App* sub = app.add_subcommand(
        "hexdump", "Show one structure field by field, with its checksum, also when damaged");
    sub->add_flag("--json", verb.json, "Print JSON");
    sub->add_option("--copy", verb.options.copy, "Which copy of a table block");
    sub->add_option_function<std::uint64_t>(
        "--sector", [&verb](const std::uint64_t& sector) { verb.options.sector = sector; },
        "Show what lies here, instead of a numbered structure");
    sub->add_option("DEVICE", verb.device, "A block device or an image file")->required();
    sub->add_option("WHAT", verb.what, "What to show, or to take the sector for")
        ->check(CLI::IsMember({"superblock", "table", "label", "filler"}));
    sub->add_option("NUMBER", verb.options.number,
                    "Copy of the superblock or label, or index of the table block");
    sub->footer(
        "Examples:\n  remap-dump hexdump /dev/sdb1 superblock 0\n"
        "  remap-dump hexdump /dev/sdb1 table 3 --copy 1\n"
        "  remap-dump hexdump /dev/sda2 label 0\n"
        "  remap-dump hexdump /dev/sdb1 --sector 8");
    sub->callback([&] { run = [&] { return run_hexdump(verb); }; });
}

}  // namespace

void add_forensic_verbs(CLI::App& app, ForensicVerbs& verbs, std::function<int()>& run) {
    add_scan(app, verbs.scan, run);
    add_hexdump(app, verbs.hexdump, run);
}

}  // namespace remap_dump
