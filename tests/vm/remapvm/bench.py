# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/bench, once packages and build are there: measures, compares with the bars, prints a table or JSON."""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from . import bench_boot, bench_kernel, bench_tools
from .errors import VmError
from .rootfs import GENERATORS

# subcommand -> its measurements, given the options: functions by name, called with a folder, the kernel's series, and what takes a figure
SUBCOMMANDS = {
    "kernel": lambda options: bench_kernel.MEASUREMENTS,
    "tools": lambda options: bench_tools.measurements(options.entries, options.runs),
    "boot": lambda options: bench_boot.measurements(options.generator, options.runs),
}


@dataclass
class Figure:
    """Something measured, and its bar (None: for information): what it may be at most, or must be at least."""

    kernel: str  # its series, or "host" for what runs without a machine
    what: str
    value: float
    unit: str
    bar: float | None = None
    at_least: bool = False

    @property
    def met(self):
        """Whether the bar was met; None without one."""
        if self.bar is None:
            return None
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def line(self) -> str:
        """For the table."""
        value, bar = (f"{number:,.2f}".removesuffix(".00") for number in (self.value, self.bar or 0))
        relation = ">=" if self.at_least else "<="
        verdict = {None: "", True: f"{relation} {bar} met", False: f"{relation} {bar} MISSED"}[self.met]
        return f"{self.kernel:5} {self.what:70} {value:>11} {self.unit:15} {verdict}".rstrip()


class Report:
    """Takes figures as they are measured and shows them."""

    def __init__(self, as_json: bool):
        self.figures = []
        self._json = as_json

    def taker(self, kernel: str):
        """A function that takes a figure of this kernel; its arguments are the rest of Figure's."""

        def take(*words, **options):
            self.figures.append(Figure(kernel, *words, **options))
            if not self._json:
                print(self.figures[-1].line(), flush=True)

        return take

    def finish(self) -> int:
        """Exit status: 1 if a bar was missed."""
        missed = [figure for figure in self.figures if figure.met is False]
        if self._json:
            print(json.dumps([{**asdict(figure), "met": figure.met} for figure in self.figures], indent=1))
        else:
            held = sum(figure.met is True for figure in self.figures)
            print(f"{held} bars met, {len(missed)} missed")
        return 1 if missed else 0


def end(number, _frame):
    """A request to end: machines and folders are cleaned up on the way out."""
    sys.exit(128 + number)


def positive(text: str) -> int:
    """A number of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("subcommand", choices=SUBCOMMANDS)
    parser.add_argument("--kernel", action="append", default=[])
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--entries", type=positive, default=1_000_000)
    parser.add_argument("--generator", action="append", default=[], choices=GENERATORS)
    parser.add_argument("--runs", type=positive)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    measurements = SUBCOMMANDS[options.subcommand](options)
    for name in options.only:
        if name not in measurements:
            parser.error(f"--only {name}: there are {', '.join(measurements)}")
    report = Report(options.json)
    folder = Path(tempfile.mkdtemp(prefix="dm-remap-bench."))
    try:
        for series in ["host"] if options.subcommand == "tools" else options.kernel or ["6.1"]:
            for name in options.only or measurements:
                measurements[name](folder / series / name, series, report.taker(series))
    except Exception as error:  # pylint: disable=broad-exception-caught # exit status 1 means something else
        print(f"scripts/bench: {error}" if isinstance(error, VmError) else traceback.format_exc(), file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
