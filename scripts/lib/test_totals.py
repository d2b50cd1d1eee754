# SPDX-License-Identifier: GPL-2.0-or-later
"""Sums up test results: test_totals.py FOLDER PHASE... reads FOLDER/PHASE.xml (JUnit) and FOLDER/PHASE.status.

Names what failed; the last line is "N passed, N failed" (", N skipped"). Exits with 1 when anything failed, when a
phase ended badly without a failed test, or when nothing ran.
"""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def outcome(case) -> str:
    """What became of a <testcase>: passed, failed or skipped."""
    kinds = {child.tag for child in case}
    if kinds & {"failure", "error"} or case.get("status") == "fail":
        return "failed"
    return "skipped" if "skipped" in kinds or case.get("status") in ("disabled", "notrun") else "passed"


def read_phase(folder: Path, phase: str):
    """{test: outcome} of a phase; one that ended badly but shows no failed test is a failure of its own."""
    outcomes = {}
    report = folder / f"{phase}.xml"
    if report.exists():
        for case in ElementTree.parse(report).iter("testcase"):
            name = f"{phase}: {case.get('classname')}::{case.get('name')}"
            # a test that fails and then fails to clean up is listed twice
            if outcomes.get(name) != "failed":
                outcomes[name] = outcome(case)
    status = (folder / f"{phase}.status").read_text().strip()
    if status != "0" and "failed" not in outcomes.values():
        outcomes[f"{phase}: ended with status {status}"] = "failed"
    return outcomes


def main(folder: str, *phases: str) -> int:
    """Print the sum of these phases; returns the exit status."""
    outcomes = {}
    for phase in phases:
        outcomes.update(read_phase(Path(folder), phase))
    total = {kind: list(outcomes.values()).count(kind) for kind in ("passed", "failed", "skipped")}
    for name in sorted(name for name, kind in outcomes.items() if kind == "failed"):
        print(f"FAILED {name}")
    if not total["passed"] and not total["failed"]:
        print("no test ran")
        total["failed"] = 1
    skipped = f", {total['skipped']} skipped" if total["skipped"] else ""
    print(f"{total['passed']} passed, {total['failed']} failed{skipped}")
    return 1 if total["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
