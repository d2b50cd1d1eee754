# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes cpio archives of the "newc" kind, the initramfs format; needs neither root nor a staging folder."""

import os
import stat
from pathlib import Path


class Archive:
    """An archive in memory. Parent folders are made as needed; the same path twice is written once (the first)."""

    def __init__(self):
        self._parts = []
        self._seen = set()

    def folder(self, path: str):
        """Add a folder and its parents."""
        path = path.strip("/")
        if not path or path in self._seen:
            return
        self.folder(os.path.dirname(path))
        self._entry(path, stat.S_IFDIR | 0o755, b"")

    def data(self, path: str, content: bytes, mode: int = 0o644):
        """Add a file with this content."""
        self._add(path, stat.S_IFREG | mode, content)

    def file(self, path: str, source: Path):
        """Add a file of the host."""
        self.data(path, source.read_bytes(), 0o755 if os.access(source, os.X_OK) else 0o644)

    def link(self, path: str, target: str):
        """Add a symbolic link."""
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def node(self, path: str, major: int, minor: int):
        """Add a character device."""
        self._add(path, stat.S_IFCHR | 0o600, b"", major, minor)

    def finish(self) -> bytes:
        """The archive with its end mark, padded so that another can follow."""
        self._entry("TRAILER!!!", 0, b"")
        result = b"".join(self._parts)
        return result + b"\0" * (-len(result) % 512)

    def _add(self, path, mode, content, major=0, minor=0):
        path = path.strip("/")
        if path in self._seen:
            return
        self.folder(os.path.dirname(path))
        self._entry(path, mode, content, major, minor)

    def _entry(self, path, mode, content, major=0, minor=0):
        self._seen.add(path)
        name = path.encode() + b"\0"
        fields = (len(self._seen), mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(name), 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
        self._parts.append(head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4))
