# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a command several times and tells what each run cost, one JSON object a line. A program of its own, with few imports:

    python3 -I -S measured.py RUNS OUTPUT FRESH BYTES COMMAND...   FRESH, if not "-", is made anew with BYTES zeroes for each run
    python3 -I -S measured.py RUNS crc FILE [OFFSET BYTES]...      reads these ranges and checksums them with zlib

The first run warms the caches and is not told. The kernel counts the memory of whoever starts a program as the program's own until it
runs, so this must be small: what takes less memory than this is told to take as much as this.
"""

import os
import sys
import time
from json import dumps

CHUNK = 1 << 18


def run(command, output, fresh, size):
    """Cost of one run, as the kernel accounts it to the process."""
    if fresh != "-":
        with open(fresh, "wb") as file:
            file.truncate(size)
    with open(output, "wb") as file, open(output + ".err", "wb") as errors:
        actions = [(os.POSIX_SPAWN_DUP2, file.fileno(), 1), (os.POSIX_SPAWN_DUP2, errors.fileno(), 2)]
        start = time.monotonic()
        # By vfork: nothing of this process is copied.
        pid = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
        wall = time.monotonic() - start
    return {
        "exit": os.waitstatus_to_exitcode(status),
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "rss": usage.ru_maxrss * 1024,
    }


def checksum(path, ranges):
    """Cost of reading these ranges in pieces as remap-fsck reads them, and of one CRC over each."""
    import zlib  # pylint: disable=import-outside-toplevel # only here, for the sake of memory

    buffer = memoryview(bytearray(CHUNK))
    cpu, wall = time.process_time(), time.monotonic()
    file = os.open(path, os.O_RDONLY)
    for offset, size in ranges:
        crc, end = 0, offset + size
        while offset < end:
            got = os.preadv(file, [buffer[: min(CHUNK, end - offset)]], offset)
            if got == 0:
                return {"exit": 1}
            crc = zlib.crc32(buffer[:got], crc)
            offset += got
    os.close(file)
    return {"exit": 0, "cpu": time.process_time() - cpu, "wall": time.monotonic() - wall}


def main():
    """Entry point."""
    runs, what, *rest = sys.argv[1:]
    for number in range(int(runs) + 1):
        if what == "crc":
            numbers = [int(word) for word in rest[1:]]
            result = checksum(rest[0], list(zip(numbers[::2], numbers[1::2])))
        else:
            fresh, size, *command = rest
            result = run(command, what, fresh, int(size))
        if number > 0 or result["exit"] != 0:
            print(dumps(result), flush=True)


main()
