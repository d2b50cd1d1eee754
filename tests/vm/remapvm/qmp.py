# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's control channel (QMP), on a connected socket."""

import json
import time

from .errors import GuestDied, VmError
from .patience import stretched


class QmpError(VmError):
    """QEMU refused a command."""


class Qmp:
    """One QMP connection. Not for use by several threads."""

    def __init__(self, sock, timeout: float = 30):
        self._patience = stretched(timeout)
        sock.settimeout(self._patience)
        self._sock = sock
        self._lines = b""
        self._events = []
        self._read()  # greeting
        self.command("qmp_capabilities")

    def command(self, name: str, **arguments):
        """Run a command, by its QMP name and arguments; returns what it returns."""
        request = {"execute": name}
        if arguments:
            request["arguments"] = arguments
        self._sock.sendall(json.dumps(request).encode())
        while True:
            message = self._read()
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise QmpError(f"{name}: {message['error']['desc']}")
            self._events.append(message)

    def wait_event(self, name: str, timeout: float = 30, **data):
        """The next event of that name whose data has these values; events that came earlier count."""
        end = time.monotonic() + stretched(timeout)
        while True:
            for event in self._events:
                if event["event"] == name and data.items() <= event.get("data", {}).items():
                    self._events.remove(event)
                    return event
            left = end - time.monotonic()
            if left <= 0:
                raise QmpError(f"no event {name} {data} within {timeout} s")
            self._sock.settimeout(left)
            try:
                self._events.append(self._read())
            except TimeoutError:
                pass  # the check above ends the loop
            finally:
                self._sock.settimeout(self._patience)

    def close(self):
        """Close the connection; QEMU lives on."""
        self._sock.close()

    def _read(self):
        while b"\n" not in self._lines:
            data = self._sock.recv(65536)
            if not data:
                raise GuestDied("QEMU closed its control channel")
            self._lines += data
        line, _, self._lines = self._lines.partition(b"\n")
        return json.loads(line)
