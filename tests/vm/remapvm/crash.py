# SPDX-License-Identifier: GPL-2.0-or-later
"""Records what the kernel target writes, with dm-log-writes, for tests of power cuts.

The main and the spare are two parts of one device, so that one log has the writes to both in their order. Bad sectors are
`error` segments above the log: a write that failed is in no log.
"""

import random
import shutil
import subprocess
from array import array
from dataclasses import dataclass, field

from . import paths
from .disk import SECTOR
from .sets import Spare, format_set

MAIN, SPARE = 2048, 2048  # sectors; no smaller spare is accepted
LOG = "96M"
FIRST_SEED = 2000000  # what tests/vm/guest/crashload.c writes

# Parts of the main. Adoption hides both ends and a few places more.
GOOD = range(300, 600)
BAD = range(600, 1300)
NEVER_WRITTEN = range(1300, 1320)  # bad, too: for blocks to become lost
ALSO_GOOD = range(1330, 1700)


@dataclass
class Step:
    """One thing to do. The command's exit status is not looked at: outcome() is told what it printed."""

    kind: str
    command: str
    seed: int = 0
    fua: bool = False
    flush: bool = False
    requests: list = field(default_factory=list)  # (sector, count) of writes
    lost: list = field(default_factory=list)  # sectors

    def journal(self, number: int, exit_status: int, output: str):
        """Lines of the journal, see tests/crash/journal.hpp."""
        lines = [f"step {number} {self.kind}"]
        errors = [int(line.split()[1]) for line in output.splitlines() if line.startswith("error ") and line.split()[2] != "0"]
        for outcome in ("failed", "ok"):
            # of a request that failed nobody knows how much was done
            chosen = [
                f"{start}+{count}"
                for start, count in self.requests
                if any(start <= error < start + count for error in errors) == (outcome == "failed")
            ]
            if chosen:
                lines.append(f"write {self.seed} {'fua' if self.fua else 'cached'} {outcome} {' '.join(chosen)}")
        if self.lost:
            lines.append(f"lost {'ok' if exit_status == 0 else 'failed'} {' '.join(f'{sector}+1' for sector in self.lost)}")
        if self.flush:
            lines.append(f"flush {'ok' if exit_status == 0 else 'failed'}")
        return lines


class Plan:
    """The steps of one recording, from a seed. Only what is written by one request is known to lie in it."""

    def __init__(self, layout: Spare, seed: int, length: int):
        self.layout = layout
        self.random = random.Random(seed)
        self.steps = []
        self.fresh = list(BAD)  # bad blocks that were not written yet, taken from the front
        self.written = []  # the others
        self.moved = []  # blocks moved by message
        self.never = list(NEVER_WRITTEN)
        self.bad_slots, self.bad_table = [], []
        self.kept = 560  # of the fresh ones: extend() needs them
        self._make(length)

    def _make(self, length):
        self.bad_blocks(16)
        for _ in range(length):
            self._anything()
        self.reopen()
        for _ in range(length // 2):
            self._anything()
        self.extend()
        self.failing_slots()
        for _ in range(length // 4):
            self._anything()
        self.doubt()
        self.dead_copy()
        self.reopen()
        self.write_good()
        self.rewrite()
        self.flush()

    def _anything(self):
        many = (self.write_good, self.write_good, self.rewrite, self.rewrite, self.bad_blocks, self.flush)
        few = (self.concurrent, self.hidden, self.move, self.forget, self.forget_bad, self.lose, self.rewrite_lost, self.reopen)
        self.random.choice(many + few)()

    def _add(self, kind, command, **options):
        self.steps.append(Step(kind, command, **options))

    def _write(self, kind, requests, size=1, threads=1, fua=None):
        """Requests of `size` sectors each, or of less."""
        seed = len(self.steps) + 100
        fua = self.random.random() < 0.4 if fua is None else fua
        flush = not fua and self.random.random() < 0.2
        where = ",".join(f"{start}+{count}" for start, count in requests)
        options = f"--seed {seed} --bs {size * SECTOR} --threads {threads}" + " --fua" * fua + " --flush" * flush
        self._add(kind, f"blkio write /dev/mapper/r0 --at {where} {options}", seed=seed, fua=fua, flush=flush, requests=requests)

    def write_good(self):
        """Some blocks of the main that it takes."""
        area = self.random.choice((GOOD, ALSO_GOOD))
        count = self.random.randint(1, 12)
        self._write("write", [(self.random.randrange(area.start, area.stop - count), count)], count)

    def bad_blocks(self, count=None):
        """Blocks that it does not take."""
        count = min(count or self.random.choice((1, 2, 5, 12)), len(self.fresh) - self.kept)
        if count > 0:
            blocks, self.fresh = self.fresh[:count], self.fresh[count:]
            self.written += blocks
            self._write("bad-sector", [(blocks[0], count)], count)

    def extend(self):
        """More than the initialised table holds."""
        slots = self.layout.table_length * 252
        self.kept = 60
        while len(self.written) + len(self.layout.entries(1)) < slots + 20:
            self.bad_blocks(64)

    def rewrite(self):
        """Blocks in slots once more."""
        first = self.random.randrange(len(self.written))
        run = [block for block in self.written[first : first + 8] if block - self.written[first] < 8]
        self._write("rewrite", [(run[0], len(run))], len(run))

    def hidden(self):
        """Blocks that adoption has hidden."""
        self._write("hidden", [(self.random.randrange(0, 250), 4)], 4)

    def concurrent(self):
        """Good, bad and rewritten ones at a time."""
        count = min(4, len(self.fresh) - self.kept)
        new, self.fresh = self.fresh[:count], self.fresh[count:]
        blocks = new + self.random.sample(self.written, min(8, len(self.written))) + self.random.sample(list(GOOD), 8)
        self.written += new
        self.random.shuffle(blocks)
        self._write("concurrent", [(block, 1) for block in blocks], threads=6)

    def flush(self):
        """A flush from above."""
        self._add("flush", "blkio flush /dev/mapper/r0", flush=True)

    def move(self):
        """Message remap of a good block that was written, or not."""
        block = self.random.choice(ALSO_GOOD)
        count = self.random.randint(1, 3)
        self.moved += range(block, block + count)
        self._add("move", f"dmsetup message r0 0 remap {block} {count}")

    def forget(self):
        """Message forget of such a block."""
        if not self.moved:
            self.move()
        block = self.moved.pop(self.random.randrange(len(self.moved)))
        self._add("forget", f"dmsetup message r0 0 forget {block}")

    def forget_bad(self):
        """Message forget of a block that the main does not take."""
        self._add("forget-refused", f"dmsetup message r0 0 forget {self.random.choice(self.written)}")

    def lose(self):
        """Message remap of a block that cannot be read."""
        if self.never:
            block = self.never.pop(0)
            self._add("lose", f"dmsetup message r0 0 remap {block}", lost=[block])

    def rewrite_lost(self):
        """The write that a lost block waits for."""
        gone = [block for block in NEVER_WRITTEN if block not in self.never]
        if gone:
            self._write("rewrite-lost", [(self.random.choice(gone), 1)])

    def reopen(self):
        """Remove the device and create it again; the next write is an activation."""
        self._add("reopen", "dmsetup remove r0 && dmsetup create r0 --table \"$remap\"")
        self._write("write", [(self.random.choice(GOOD), 1)])

    def failing_slots(self):
        """Slots in use that fail from now on, and some that were never used."""
        entries = self.layout.entries(1)
        used = sorted(entries)[2:60:15] if entries else list(range(1, 14, 4))
        self.bad_slots = used + list(range(1010, 1040, 12))
        self._spare("break-slots")
        if entries:
            for slot in used:
                self._write("slot-fails", [(entries[slot][1], 1)])
        else:
            for block in self.written[:14]:
                self._write("slot-fails", [(block, 1)])
        self.kept = 10
        self.bad_blocks(40)

    def doubt(self):
        """A commit that fails, and one that settles it. From here on only these blocks are written once more."""
        blocks = [self.fresh.pop(0) for _ in range(2)]
        self.bad_table = [(copy, index) for copy in range(2) for index in range(self._table_blocks())]
        self._spare("break-table")
        self._write("doubt", [(block, 1) for block in blocks], fua=True)
        self.bad_table = []
        self._spare("mend-table")
        self._write("doubt-write", [(blocks[0], 1)], fua=True)
        self._write("doubt-write", [(blocks[1], 1)], fua=False)
        self.written = blocks

    def dead_copy(self):
        """One copy of the table cannot be written any more. Nothing is committed afterwards: see docs/design.md, limits."""
        self.bad_table = [(1, index) for index in range(self._table_blocks())]
        self._spare("break-copy")
        self.kept = 0
        self.bad_blocks(1)

    def _table_blocks(self):
        return (self.layout.slots + 251) // 252

    def _spare(self, kind):
        sectors = [self.layout.slot_sector(slot) for slot in self.bad_slots]
        for copy, index in self.bad_table:
            start = self.layout.tables[copy] + index * 8
            sectors += range(start, start + 8)
        lines = pieces(SPARE, sectors, MAIN)
        self._add(kind, f"dmsetup suspend spare && dmsetup load spare <<'EOT' && dmsetup resume spare\n{lines}EOT")


def pieces(size: int, bad, start: int) -> str:
    """A table of linear segments over the log device from `start` on, with `error` where bad."""
    lines, at = [], 0
    for sector in [*sorted(set(bad)), size]:
        if sector > at:
            lines.append(f"{at} {sector - at} linear /dev/mapper/log {start + at}")
        if sector < size:
            lines.append(f"{sector} 1 error")
        at = sector + 1
    return "\n".join(lines) + "\n"


class Recording:
    """One set, its disks `data` and `log`, and what comes out of running a plan on it.

    torn: the copy of the table that is the first to be written is damaged before.
    loop: the members are loop devices, which unlike the log device have no FUA.
    """

    def __init__(self, machines, name, options=(), seed=1, length=40, *, torn=False, loop=False):
        self.folder = machines.folder / "disks"
        self.name, self.loop = name, loop
        main = machines.disk(f"{name}_main", f"{MAIN}s")
        spare = machines.disk(f"{name}_spare", f"{SPARE}s")
        crash_states("fill", main.path, MAIN)
        format_set(main, spare, *options)
        layout = Spare(spare)
        if torn:
            # as a power cut leaves the copy that is written first
            spare.write(layout.tables[0] * SECTOR + 1024, bytes([0xA5]) * 3072)
        self.plan = Plan(layout, seed, length)
        self.data = machines.disk(f"{name}_data", f"{MAIN + SPARE}s")
        self.data.write(0, main.read(0, MAIN * SECTOR) + spare.read(0, SPARE * SECTOR))
        self.log = machines.disk(f"{name}_log", LOG)
        self.before = self.folder / f"{name}-before.img"
        self.before.write_bytes(self.data.path.read_bytes())
        self.journal = self.folder / f"{name}.journal"

    def script(self, vm) -> str:
        """Everything for the guest's shell."""
        bad = [*BAD, *NEVER_WRITTEN]
        members = "/dev/loop0 /dev/loop1" if self.loop else "/dev/mapper/main /dev/mapper/spare"
        loops = [f"losetup --direct-io=on /dev/loop{number} /dev/mapper/{name} || exit" for number, name in enumerate(("main", "spare"))]
        lines = [
            f"remap='0 {MAIN} remap {members} 0'",
            f"dmsetup create log --table '0 {MAIN + SPARE} log-writes {vm.dev(self.data)} {vm.dev(self.log)}' || exit",
            f"dmsetup create main <<'EOT' || exit\n{pieces(MAIN, bad, 0)}EOT",
            f"dmsetup create spare <<'EOT' || exit\n{pieces(SPARE, (), MAIN)}EOT",
            *(loops if self.loop else ()),
            'dmsetup create r0 --table "$remap" || exit',
        ]
        for number, step in enumerate(self.plan.steps, 1):
            lines += [f"echo '@ {number}'", f"{{ {step.command}", "}", 'echo "= $?"', f"dmsetup message log 0 mark s{number} || exit"]
        lines += ["dmsetup remove r0 || exit", "losetup -D" if self.loop else ""]
        lines += [f"dmsetup remove {name} || exit" for name in ("main", "spare", "log")] + ["echo '@ end'"]
        return "\n".join(lines) + "\n"

    def run(self, vm):
        """Do all steps and write the journal. The log is complete when the log device is removed."""
        vm.push(self.script(vm).encode(), "/tmp/steps")
        result = vm.run("sh /tmp/steps 2>/tmp/errors; cat /tmp/errors >&2", timeout=600)
        begin, *parts = result.stdout.split("@ ")
        if not parts or parts[-1].strip() != "end":
            raise AssertionError(f"{self.name}: recording ended early\n{begin}{result.stdout[-2000:]}{result.stderr}")
        lines = [f"size {MAIN} {SPARE}"]
        for number, (step, part) in enumerate(zip(self.plan.steps, parts, strict=False), 1):
            first, _, rest = part.partition("\n")
            output, _, status = rest.rpartition("= ")
            assert int(first) == number
            lines += step.journal(number, int(status.split()[0]), output)
        self.journal.write_text("\n".join(lines) + "\n")

    def check(self, *options, check=True):
        """Run crash-states on the recording."""
        return crash_states("check", self.before, self.log.path, self.journal, *options, check=check)

    def sample(self, count, *options):
        """The same, and choose states for Loads; returns the prefix of their files."""
        prefix = self.folder / f"{self.name}_states"
        return prefix, self.check("--sample", count, "--prefix", prefix, *options).stdout


class Loads:
    """States for the kernel to load: what crash-states has chosen from some recordings, on one disk."""

    def __init__(self, machines, parts):
        self.folder = machines.folder / "disks"
        self.parts, self.lines = parts, []
        image = self.folder / "states.img"
        with open(image, "wb") as out:
            for part in parts:
                start = out.tell() // SECTOR
                for line in part.with_suffix(".plan").read_text().splitlines():
                    main, size, spare, rest = line.split(" ", 3)
                    self.lines.append(f"{int(main) + start} {size} {int(spare) + start} {rest}")
                with open(part.with_suffix(".img"), "rb") as states:
                    shutil.copyfileobj(states, out, 1 << 20)
                part.with_suffix(".img").unlink()
        self.states = machines.disk("states", path=image)
        self.results = machines.disk("results", 3 * 4 * MAIN * len(self.lines))

    def run(self, vm):
        """Load all of them in a machine that has no set open; returns what was not as it has to be."""
        vm.plug(self.states)
        vm.plug(self.results)
        plan = "\n".join(self.lines) + "\n"
        output = vm.run("crashload {states} {results}", stdin=plan.encode(), timeout=600).stdout
        if not output.endswith(f"done sets={len(self.lines)}\n"):
            raise AssertionError(f"crashload ended early:\n{output[-2000:]}")
        return self._compare(output.splitlines()[:-1])

    def _compare(self, lines):
        troubles = [line for line in lines if not line.endswith(" check ok")]
        views = array("I", b"".join(part.with_suffix(".views").read_bytes() for part in self.parts))
        results = array("I", self.results.path.read_bytes())
        for number, line in enumerate(self.lines):
            first, written, again = (results[MAIN * (3 * number + i) :][:MAIN] for i in range(3))
            expected = views[MAIN * number :][:MAIN]
            troubles += self._differences(number, "reads", expected, first)
            for sector in map(int, line.split()[4].split(",")):
                expected[sector] = FIRST_SEED + number
            troubles += self._differences(number, "reads after a write", expected, written)
            troubles += self._differences(number, "reads when opened again", expected, again)
        return troubles

    @staticmethod
    def _differences(number, what, expected, found):
        wrong = [sector for sector in range(MAIN) if expected[sector] != found[sector]] if expected != found else []
        return [f"set {number} {what}: sector {sector}: expected {expected[sector]:#x}, found {found[sector]:#x}" for sector in wrong[:3]]


def crash_states(*words, check=True) -> subprocess.CompletedProcess:
    """Run the checker, see tests/crash."""
    command = [paths.build() / "bin" / "crash-states", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


@dataclass
class Mutant:
    """The kernel module with one thing wrong: in a source file, `right` replaced by `wrong`."""

    name: str
    file: str
    right: str
    wrong: str

    def source(self) -> str:
        """The source file with the bug in it."""
        text = (paths.SOURCE / "kmod" / self.file).read_text()
        if text.count(self.right) != 1:
            raise AssertionError(f"mutant {self.name}: its place is not in {self.file}, or more than once")
        return text.replace(self.right, self.wrong)

    def build(self, folder, release) -> bytes:
        """The module, built in `folder`."""
        shutil.copytree(paths.SOURCE / "kmod", folder)
        (folder / self.file).write_text(self.source())
        make = ["make", "-C", f"/lib/modules/{release}/build", f"M={folder}", "modules"]
        done = subprocess.run(make, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"mutant {self.name} does not build:\n{done.stdout}{done.stderr}")
        return (folder / "dm-remap.ko").read_bytes()


MUTANTS_OF_WRITING = [
    Mutant(
        "no flush before the commit",
        "dm-remap-metadata.c",
        "\tr = remap_flush_spare(md, losses);\n\tif (r)\n\t\treturn r;\n\n\tgen = ",
        "\tgen = ",
    ),
    Mutant(
        "table copies without FUA",
        "dm-remap-metadata.c",
        "\t\telse if (remap_write_table_block(md, tb, index, copy, flush ? 0 : REQ_FUA))\n",
        "\t\telse if (remap_write_table_block(md, tb, index, copy, 0))\n",
    ),
    Mutant(
        "newest copy overwritten first",
        "dm-remap-metadata.c",
        "\t\ttb->generation = cpu_to_le64(gen);\n\t\tcopy = (tb->copy + 1) % md->nr_copies;\n",
        "\t\tcopy = (tb->copy + (le64_to_cpu(tb->generation) == gen)) % md->nr_copies;\n\t\ttb->generation = cpu_to_le64(gen);\n",
    ),
    Mutant(
        "length before its blocks",
        "dm-remap-metadata.c",
        "\t\t\tif (remap_write_table_block(md, tb, index, copy, flush ? 0 : REQ_FUA))\n\t\t\t\tbreak;\n",
        "\t\t\tif (remap_write_table_block(md, tb, index, copy, 0))\n\t\t\t\tbreak;\n",
    ),
    Mutant(
        "old slot marked bad before the new one is durable",
        "dm-remap-target.c",
        "\tremap_stage_move(r, part, slot, old, REMAP_AT_SLOT, cause, err);\n\treturn BLK_STS_OK;",
        "\tif (old != REMAP_NO_SLOT) {\n\t\tremap_md_stage_bad(r->md, old, EIO);\n"
        "\t\tremap_md_commit(r->md, remap_md_losses(r->md, REMAP_ROLE_SPARE));\n\t}\n"
        "\tremap_stage_move(r, part, slot, old, REMAP_AT_SLOT, cause, err);\n\treturn BLK_STS_OK;",
    ),
]

MUTANTS_OF_READING = [
    Mutant(
        "checksum of table blocks unchecked",
        "dm-remap-metadata.c",
        "\t\tle32_to_cpu(tb->crc) ==\n\t\t\tremap_struct_crc(md->seed, tb, sizeof(*tb),\n"
        "\t\t\t\t\t offsetof(struct remap_table_block, crc)) &&\n",
        "",
    ),
    Mutant(
        "generation of table blocks not compared",
        "dm-remap-metadata.c",
        " || le64_to_cpu(tb->generation) > le64_to_cpu(best->generation)",
        "",
    ),
]
