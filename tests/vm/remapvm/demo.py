# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/demo, once packages and build are there: tells the story of the boot test as it happens."""

import argparse
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import termios
import threading
import time
import tty
from pathlib import Path

from .errors import VmError
from .story import Story
from .vm import VM

LEAVE = b"\x1d"  # Ctrl-]
INTRODUCTION = """
A Debian 12 in a virtual machine (QEMU, no KVM needed) whose root disk cannot write hundreds of its sectors. dm-remap keeps it
in service: what cannot be written goes to a second disk, the spare, and the system notices nothing, not even after a power cut.
Takes two to five minutes; the numbers on the left are minutes and seconds."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Narrator:
    """Prints what happens, with the time since the start; on a terminal a running clock shows that something does."""

    def __init__(self):
        self._start = time.monotonic()
        self._doing = ""
        self._live = sys.stdout.isatty()
        self._lock = threading.Lock()
        self._chapters = 0
        if self._live:
            threading.Thread(target=self._tick, daemon=True).start()

    def heading(self, text: str):
        """The next chapter begins."""
        self._chapters += 1
        self._print(f"\n{self._chapters}. {text}\n")

    def tell(self, text: str):
        """Something has happened, or begins."""
        self._print(f"[{self._elapsed()}] {text}\n")
        self._doing = text

    def quiet(self):
        """No running clock from here on: the terminal is somebody else's."""
        self._print("")
        self._live = False

    def _elapsed(self) -> str:
        seconds = int(time.monotonic() - self._start)
        return f"{seconds // 60}:{seconds % 60:02}"

    def _print(self, text: str):
        with self._lock:
            if self._live:
                sys.stdout.write("\r\x1b[K")
            sys.stdout.write(text)
            sys.stdout.flush()

    def _tick(self):
        while self._live:
            time.sleep(1)
            if self._doing and self._live:
                self._print(f"[{self._elapsed()}] ... {self._doing[:60]}")


def bridge(path: Path):
    """Connects the terminal with a Unix socket until Ctrl-] or the other side's end."""
    with socket.socket(socket.AF_UNIX) as console:
        console.connect(str(path))
        console.sendall(b"\n")
        inputs = [console, sys.stdin.fileno()]
        while True:
            for ready in select.select(inputs, [], [])[0]:
                data = os.read(ready, 4096) if ready != console else console.recv(4096)
                if ready == console:
                    if not data:
                        return
                    sys.stdout.buffer.write(data)
                    sys.stdout.buffer.flush()
                elif LEAVE in data:
                    return
                elif data:
                    console.sendall(data)
                else:
                    inputs.remove(ready)  # not a terminal, and at its end: the guest goes on


def shell(story: Story, narrator: Narrator):
    """A root shell in the machine of the story, on this terminal."""
    path = story.folder / "console"
    story.open_console(path)
    narrator.tell("a root shell in it follows; leave it with Ctrl-] or poweroff")
    narrator.quiet()
    terminal = sys.stdin.isatty()
    saved = termios.tcgetattr(sys.stdin) if terminal else None
    try:
        if terminal:
            tty.setraw(sys.stdin)
        bridge(path)
    finally:
        if terminal:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, saved)
        story.power_cut()


def interrupt_once(_number, _frame):
    """The first request to end interrupts; the cleaning up that follows is not interrupted by a second one."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="scripts/demo")
    parser.add_argument("--generator", default="initramfs-tools")
    parser.add_argument("--shell", action="store_true")
    options = parser.parse_args()
    for number in SIGNALS:
        signal.signal(number, interrupt_once)
    folder = Path(tempfile.mkdtemp(prefix="dm-remap-demo."))
    narrator = Narrator()

    def boot(*disks, **settings):
        return VM(disks, folder, **settings)

    story = Story(folder, boot, options.generator, tell=narrator.tell)
    print(INTRODUCTION)
    try:
        story.run(narrator.heading)
        narrator.tell("everything that was to be shown has been shown")
        if options.shell:
            narrator.heading("A look inside")
            shell(story, narrator)
        return 0
    except VmError as error:
        narrator.quiet()
        print(f"\nscripts/demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        narrator.quiet()
        print("\nscripts/demo: interrupted", file=sys.stderr)
        return 130
    finally:
        story.power_cut()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
