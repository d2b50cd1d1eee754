# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads what tests/vm/guest/blkio.c prints."""


class BlkioReport:
    """What happened to each request of a blkio run.

    errors   {first failing sector of a request: name of the error}
    differs  {sector: (seed, sector) found there, or None when the content is no pattern}
    seeds    {sector: seed, None for no pattern} of a scan
    acked    sectors whose write was acknowledged (ack=True)
    requests how many requests were made
    """

    def __init__(self, result):
        self.result = result
        self.errors, self.differs, self.seeds, self.acked = {}, {}, {}, set()
        self.requests = None
        text = result.stderr if result.command.split()[1:2] == ["read"] else result.stdout
        # a line cut short by a power cut has no newline and does not count
        for line in text[: text.rfind("\n") + 1].splitlines():
            self._take(line.split())

    def _take(self, words):
        if words[0] == "error":
            self.errors[int(words[1])] = words[4]
        elif words[0] == "differs":
            self.differs[int(words[1])] = None if words[3] == "?" else (int(words[3]), int(words[4]))
        elif words[0] == "seed":
            self.seeds[int(words[1])] = None if words[2] == "?" else int(words[2])
        elif words[0] == "ok":
            self.acked.update(range(int(words[1]), int(words[1]) + int(words[2])))
        elif words[0] == "done":
            self.requests = int(words[1].partition("=")[2])

    @property
    def ok(self) -> bool:
        """No error, nothing different, and it ran to its end."""
        return self.requests is not None and not self.errors and not self.differs

    @property
    def data(self) -> bytes:
        """What a read returned."""
        return self.result.raw_stdout

    def __str__(self):
        return str(self.result)
