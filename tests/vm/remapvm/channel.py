# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's end of the agent channel: starts commands in the guest and collects what they give back.

The frames are described in tests/vm/guest/agent.c. A thread reads them, so that a guest never waits for the host.
"""

import os
import struct
import threading
import time

from .errors import CommandTimeout, GuestDied
from .patience import wait_for

_HEAD = struct.Struct("<IIc")


class Result:
    """What a command in the guest gave back.

    exit: its exit status, -N when signal N ended it, None while it has not ended.
    stdout, stderr: text; raw_stdout, raw_stderr: bytes.
    """

    def __init__(self, command, exit_status, raw_stdout, raw_stderr, seconds):
        self.command = command
        self.exit = exit_status
        self.raw_stdout = raw_stdout
        self.raw_stderr = raw_stderr
        self.seconds = seconds

    @property
    def stdout(self) -> str:
        return self.raw_stdout.decode(errors="replace")

    @property
    def stderr(self) -> str:
        return self.raw_stderr.decode(errors="replace")

    @property
    def lines(self):
        """Standard output as lines."""
        return self.stdout.splitlines()

    def __str__(self):
        status = "still running" if self.exit is None else f"exit {self.exit}"
        text = f"{self.command}\n  [{status}, {self.seconds:.2f} s]"
        for name, content in (("stdout", self.stdout), ("stderr", self.stderr)):
            if content:
                text += f"\n  {name}:\n" + _shortened(content)
        return text


def _shortened(content: str, lines: int = 60) -> str:
    shown = content.splitlines()
    if len(shown) > lines:
        shown = shown[: lines // 2] + [f"... {len(shown) - lines} lines ..."] + shown[-lines // 2 :]
    return "\n".join("    " + line[:400] for line in shown)


class Process:
    """A command that runs in the guest."""

    def __init__(self, channel, number: int, command: str):
        self._channel = channel
        self._number = number
        self._started = time.monotonic()
        self._ended = None
        self.command = command
        self.output = {b"O": bytearray(), b"R": bytearray()}
        self.status = None
        self.start_error = None

    def result(self) -> Result:
        """What it has given so far."""
        with self._channel.changed:
            seconds = (self._ended or time.monotonic()) - self._started
            out, err = bytes(self.output[b"O"]), bytes(self.output[b"R"])
            return Result(self.command, self.status, out, err, seconds)

    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._ended is None

    def wait(self, timeout: float = 60) -> Result:
        """Wait for its end; after the timeout (seconds) it and all it started is killed, and CommandTimeout raised."""
        if self._wait(timeout):
            if self.start_error:
                raise FileNotFoundError(self.start_error, os.strerror(self.start_error), self.command)
            return self.result()
        self.kill()
        gone = self._wait(3)
        text = f"did not end within {timeout} s, " + ("killed" if gone else "and does not die when killed")
        result = self.result()
        raise CommandTimeout(f"{text}: {result}", result)

    def wait_output(self, text: str, timeout: float = 60) -> Result:
        """Wait until its standard output contains the text."""
        wanted = text.encode()
        with self._channel.changed:
            wait_for(
                self._channel.changed, lambda: wanted in self.output[b"O"] or self._ended or self._channel.closed, timeout
            )
            found = wanted in self.output[b"O"]
        result = self.result()
        if not found:
            raise CommandTimeout(f"no {text!r} in the output: {result}", result)
        return result

    def write(self, data: bytes):
        """Pass data to its standard input."""
        self._channel.send(b"I", self._number, data)

    def close_input(self):
        """End its standard input."""
        self._channel.send(b"C", self._number)

    def kill(self):
        """SIGKILL to its process group."""
        self._channel.send(b"K", self._number)

    def _wait(self, timeout: float) -> bool:
        with self._channel.changed:
            wait_for(self._channel.changed, lambda: self._ended or self._channel.closed, timeout)
            if not self._ended and self._channel.closed:
                raise GuestDied(f"the guest died while this ran: {self.command}")
            return self._ended is not None

    def take(self, kind: bytes, payload: bytes):
        """A frame for this command; called by the channel's thread, under its lock."""
        if kind in self.output:
            self.output[kind] += payload
            return
        value = struct.unpack("<i", payload)[0]
        if kind == b"F":
            self.start_error = value
        elif os.WIFSIGNALED(value):
            self.status = -os.WTERMSIG(value)
        else:
            self.status = os.WEXITSTATUS(value)
        self._ended = time.monotonic()


class Channel:
    """The connection to one guest's agent."""

    def __init__(self, sock):
        self.changed = threading.Condition()
        self.closed = False
        self.release = None
        self._sock = sock
        self._processes = {}
        self._next = 1
        self._sending = threading.Lock()
        threading.Thread(target=self._read_frames, daemon=True, name="agent channel").start()

    def wait_ready(self, timeout: float) -> bool:
        """Wait until the agent has said hello; false when it has not in time, or the channel closed."""
        with self.changed:
            wait_for(self.changed, lambda: self.release or self.closed, timeout)
            return self.release is not None

    def start(self, argv, settings=(), stdin=b"") -> Process:
        """Start a command. stdin: its whole standard input, or None to leave that open for Process.write()."""
        strings = [os.fsencode(word) for word in argv] + [os.fsencode(word) for word in settings]
        with self.changed:
            number = self._next
            self._next += 1
            process = Process(self, number, argv[2] if argv[:2] == ["sh", "-c"] else " ".join(map(str, argv)))
            self._processes[number] = process
        self.send(b"E", number, struct.pack("<I", len(argv)) + b"".join(word + b"\0" for word in strings))
        if stdin is not None:
            if stdin:
                self.send(b"I", number, stdin)
            self.send(b"C", number)
        return process

    def send(self, kind: bytes, number: int, payload: bytes = b""):
        """One frame to the agent."""
        try:
            with self._sending:
                self._sock.sendall(_HEAD.pack(len(payload), number, kind) + payload)
        except OSError as error:
            raise GuestDied(f"the guest died: its channel is closed ({error})") from error

    def close(self):
        """Close the connection."""
        try:
            self._sock.shutdown(2)
        except OSError:
            pass  # QEMU was faster
        self._sock.close()

    def _read_exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            part = self._sock.recv(min(count - len(data), 1 << 20))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    def _read_frames(self):
        try:
            while True:
                length, number, kind = _HEAD.unpack(self._read_exactly(_HEAD.size))
                payload = self._read_exactly(length)
                with self.changed:
                    if kind == b"H":
                        self.release = payload.decode()
                    elif number in self._processes:
                        self._processes[number].take(kind, payload)
                    self.changed.notify_all()
        except (OSError, EOFError):
            with self.changed:
                self.closed = True
                self.changed.notify_all()
