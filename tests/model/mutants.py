#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts one known mistake after the other into the kernel's sources and sees that the model catches each of them.

A mutant is caught when the model reports an invariant as violated, in one of the runs that ctest -L model does each time;
a mutant that does not build, or whose text is no longer in the sources, is a failure of this test.  So is a violation
with the sources as they are.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

METADATA = "dm-remap-metadata.c"
TARGET = "dm-remap-target.c"

# Submits the copies of a table block together instead of one after the other.
PARALLEL = """
static void remap_mutant_endio(struct bio *bio)
{
	atomic_dec((atomic_t *)bio->bi_private);
}

static int remap_write_parallel(struct remap_md *md, u64 gen)
{
	struct remap_table_block *tb, *copies[REMAP_MAX_TABLE_COPIES] = { };
	struct bio *bios[REMAP_MAX_TABLE_COPIES] = { };
	atomic_t left = ATOMIC_INIT(0);
	unsigned long index;
	unsigned int i;
	int r = 0;

	xa_for_each_marked(&md->table, index, tb, REMAP_DIRTY) {
		tb->generation = cpu_to_le64(gen);
		for (i = 0; i < md->nr_copies; i++) {
			if (!(md->live & BIT(i)))
				continue;
			copies[i] = kmalloc(sizeof(*tb), GFP_NOIO | __GFP_NOFAIL);
			*copies[i] = *tb;
			copies[i]->copy = i;
			copies[i]->position = cpu_to_le64(remap_table_sector(md, i, index));
			copies[i]->crc = cpu_to_le32(remap_struct_crc(md->seed, copies[i], sizeof(*tb),
								      offsetof(struct remap_table_block, crc)));
			bios[i] = bio_alloc(md->spare, 1, REQ_OP_WRITE | REQ_FUA, GFP_NOIO);
			bios[i]->bi_iter.bi_sector = remap_table_sector(md, i, index);
			__bio_add_page(bios[i], virt_to_page(copies[i]), sizeof(*tb), offset_in_page(copies[i]));
			bios[i]->bi_private = &left;
			bios[i]->bi_end_io = remap_mutant_endio;
			atomic_inc(&left);
			submit_bio(bios[i]);
		}
		while (atomic_read(&left))
			model_step();
		for (i = 0; i < md->nr_copies; i++) {
			if (!bios[i])
				continue;
			r = r ?: blk_status_to_errno(bios[i]->bi_status);
			bio_put(bios[i]);
			kfree(copies[i]);
			bios[i] = NULL;
		}
	}
	return r;
}
"""

FLUSH = """	r = remap_flush_spare(md, losses);
	if (r)
		return r;

"""
PASSES = """	gen = remap_next_generation(md);
	md->touched = true;
	for (i = 0; i < md->nr_copies; i++) {
		r = remap_write_pass(md, gen, &good);
		if (r)
			return r;
	}
"""
COMMENT_OF_WRITE_DIRTY = """/*
 * Flush what the entries point to, then write the live copies of the dirty
"""

# name: [(file, text that is there exactly once, what takes its place)]
MUTANTS = {
    "metadata before data": [(METADATA, FLUSH + PASSES, PASSES + FLUSH)],
    "no PREFLUSH": [(METADATA, FLUSH + PASSES, "\t(void)losses;\n" + PASSES)],
    "no FUA": [(METADATA, "copy, flush ? 0 : REQ_FUA))\n			*good",
                "copy, 0))\n			*good")],
    "early acknowledge": [(TARGET, "	flushed = remap_flush_main(r);\n	remap_commit_batch(r);\n",
                           "	flushed = remap_flush_main(r);\n"
                           "	while ((bio = bio_list_pop(&done)))\n"
                           "		remap_finish(r, bio, remap_io(bio)->status);\n"
                           "	remap_commit_batch(r);\n")],
    "newest copy overwritten first": [(METADATA, FLUSH + PASSES, FLUSH + """	{
		struct remap_table_block *tb;
		unsigned long index;

		xa_for_each_marked(&md->table, index, tb, REMAP_DIRTY)
			tb->copy = (tb->copy + md->nr_copies - 1) % md->nr_copies;
	}
""" + PASSES)],
    "CRC unchecked": [(METADATA, """		le32_to_cpu(tb->crc) ==
			remap_struct_crc(md->seed, tb, sizeof(*tb),
					 offsetof(struct remap_table_block, crc)) &&
		tb->copy == copy""", "		tb->copy == copy")],
    "generation not compared": [(METADATA,
                                 "if (!best || le64_to_cpu(tb->generation) > le64_to_cpu(best->generation)) {",
                                 "if (!best) {")],
    "copies written in parallel": [
        (METADATA, COMMENT_OF_WRITE_DIRTY, PARALLEL + COMMENT_OF_WRITE_DIRTY),
        (METADATA, FLUSH + PASSES, FLUSH + "\tgen = remap_next_generation(md);\n\t(void)i;\n\t(void)remap_write_pass;\n"
         "\tr = remap_write_parallel(md, gen);\n\tif (r)\n\t\treturn r;\n")],
    "dead copy still voting": [(METADATA, "		md->live = good;\n		md->sb_pending = true;\n",
                                "		md->live = good;\n")],
    "doubt forgotten": [(TARGET, "	remap_map_publish_doubtful(&r->map);\n", "	remap_map_abandon(&r->map);\n")],
    "old entry bad before the new one is durable": [
        (TARGET, "	if (want != REMAP_NO_SLOT && slot != want)\n		old = want;\n",
         "	if (want != REMAP_NO_SLOT && slot != want)\n		old = want;\n"
         "	if (old != REMAP_NO_SLOT) {\n		remap_md_stage_bad(r->md, old, EIO);\n"
         "		remap_md_commit(r->md, r->spare_losses);\n	}\n")],
    "table length before its blocks": [
        (METADATA, "	gen = remap_next_generation(md);\n	for (copy = 0; copy < md->nr_copies; copy++) {\n",
         "	md->table_length = end;\n	r = remap_write_sbs(md);\n	md->table_length = old;\n	if (r)\n		return r;\n"
         "	gen = remap_next_generation(md);\n	for (copy = 0; copy < md->nr_copies; copy++) {\n")],
    "epoch not raised": [(METADATA, "		sb->epoch = cpu_to_le32(epoch + 1);\n",
                          "		sb->epoch = cpu_to_le32(epoch);\n")],
    "label epoch recorded without a flush": [
        (METADATA, "	if (blkdev_issue_flush(md->main))\n		remap_md_cache_lost(md, REMAP_ROLE_MAIN);\n	else\n"
         "		md->sb->label_epoch = epoch;\n", "	md->sb->label_epoch = epoch;\n")],
    "newest label overwritten first": [(METADATA, "const unsigned int passes[] = { ~md->labels, md->labels };",
                                        "const unsigned int passes[] = { md->labels, ~md->labels };")],
    "forget without a commit of what is staged": [
        (TARGET, "	ret = remap_md_commit(r->md, remap_md_losses(r->md, REMAP_ROLE_SPARE));\n	if (!ret)\n"
         "		ret = remap_prepare_batch(r);\n", "	ret = remap_prepare_batch(r);\n")],
}

# What ctest runs each time.
RUNS = (["--scripts"], ["--states", "20000"])


def apply(name, folder):
    """Returns what is wrong, or nothing."""
    for file, old, new in MUTANTS[name]:
        path = folder / file
        text = path.read_text()
        if text.count(old) != 1:
            return f"its text is {text.count(old)} times in {file}"
        path.write_text(text.replace(old, new))
    return None


def build(args, folder):
    program = folder / "crash-model"
    objects = []
    for source in sorted(folder.glob("*.c")):
        objects.append(str(source.with_suffix(".o")))
        subprocess.run([args.cc, *args.cflags.split(";"), "-I", args.shim, "-I", args.model, "-I", str(folder), "-c",
                        str(source), "-o", objects[-1]], check=True, capture_output=True, text=True)
    subprocess.run([args.cxx, "-o", str(program), *objects, args.library, "-lz"], check=True, capture_output=True, text=True)
    return program


def run(args, name):
    """Returns (caught, what was seen); without a name: whether the sources as they are pass."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        for source in Path(args.kmod).glob("*.[ch]"):
            shutil.copy(source, folder)
        problem = apply(name, folder) if name else None
        if problem:
            return False, problem
        try:
            program = build(args, folder)
        except subprocess.CalledProcessError as error:
            return False, f"does not build:\n{error.stderr}"
        return look_for_violations(args, program, name)


def look_for_violations(args, program, name):
    seen = []
    for options in RUNS:
        started = time.monotonic()
        result = subprocess.run([str(program), *options], capture_output=True, text=True)
        output = result.stdout + result.stderr
        violated = re.search(r"invariant (\S+) violated: (.*)", result.stdout)
        states = re.search(r"^after (\d+) states", result.stdout, re.MULTILINE)
        if not name:
            seen.append(output.strip().splitlines()[-1])
            if result.returncode != 0:
                return False, "; ".join(seen)
        elif result.returncode == 1 and violated and states and violated[1] != "script":
            return True, (f"{options[0]}: invariant {violated[1]} after {states[1]} states, "
                          f"{time.monotonic() - started:.1f} s: {violated[2][:args.width]}")
        elif result.returncode != 0 and not (violated and violated[1] == "script"):
            return False, f"exit {result.returncode}: {output[-300:]}"
        else:
            # A life that does not come to its point is no proof: the mistake has to do harm.
            seen.append(violated[2][:args.width] if violated else output.strip().splitlines()[-1])
    return not name, "; ".join(seen)


def main():
    parser = argparse.ArgumentParser()
    for option in ("--kmod", "--shim", "--model", "--library", "--cc", "--cxx", "--cflags"):
        parser.add_argument(option, required=True)
    parser.add_argument("--width", type=int, default=150, help="of what is printed of a violation")
    parser.add_argument("--only", help="part of a mutant's name")
    args = parser.parse_args()

    names = [name for name in MUTANTS if not args.only or args.only in name]
    missed = 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        unchanged = pool.submit(run, args, None)
        for name, (caught, seen) in zip(names, pool.map(lambda name: run(args, name), names)):
            print(f"{'caught' if caught else 'MISSED'}: {name}: {seen}", flush=True)
            missed += not caught
    passed, seen = unchanged.result()
    print(f"{'passes' if passed else 'FAILS'}: nothing changed: {seen}")
    print(f"{len(names) - missed} of {len(names)} mutants caught")
    return 1 if missed or not names or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
