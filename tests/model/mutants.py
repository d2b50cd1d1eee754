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
        (METADATA, "	if (!remap_md_flush(md, REMAP_ROLE_MAIN))\n		md->sb->label_epoch = epoch;", "	md->sb->label_epoch = epoch;")],
    "newest label overwritten first": [(METADATA, "const unsigned int passes[] = { ~md->labels, md->labels };",
                                        "const unsigned int passes[] = { md->labels, ~md->labels };")],
    "forget without a commit of what is staged": [
        (TARGET, "	ret = remap_md_commit(r->md, remap_md_losses(r->md, REMAP_ROLE_SPARE));\n	if (!ret)\n"
         "		ret = remap_prepare_batch(r);\n", "	ret = remap_prepare_batch(r);\n")],
    "flushes not held": [(METADATA, "	return unlikely(atomic_read_acquire(&md->holders[role]));", "	return false;")],
    "generation of a torn superblock used again": [
        (METADATA, "	md->generation = remap_highest_generation(&scan);",
         "	md->generation = le64_to_cpu(md->sb->head.generation);\n	(void)remap_highest_generation;")],
    "epoch that was read used for an activation": [(METADATA, "	md->epoch_own = false;\n	remap_scan_spare",
                                                    "	md->epoch_own = true;\n	remap_scan_spare")],
    "losses not compared in a commit": [
        (METADATA, "	if (!r && remap_md_losses(md, role) != losses)\n		r = -EIO;\n	return r;\n}\n\n/*\n * Write @buf durably",
         "	(void)losses;\n	return r;\n}\n\n/*\n * Write @buf durably")],
    "next flush does not hear of a loss": [(METADATA, "	set_bit(role, &md->cache_lost);", "	(void)role;")],
    "labels ahead of the superblocks": [
        (METADATA, "	if (md->sb_pending) {\n		r = remap_write_sbs(md);\n		if (r)\n			return r;\n	}\n	if (!remap_is_bare(md)) {\n",
         "	if (!remap_is_bare(md)) {\n")],
    "no quorum of superblocks": [(METADATA, "	if (done >= REMAP_SB_QUORUM) {", "	if (done) {")],
    "superblocks do not record that labels have the epoch": [
        (METADATA, "			sb->label_epoch = sb->epoch;\n", "")],
    "unequal copies left as they are": [(METADATA, "	if (!equal)\n		xa_set_mark", "	if (0)\n		xa_set_mark")],
    "old entry not marked bad": [
        (TARGET, "		if (r->moves[i].old_slot != REMAP_NO_SLOT)\n			remap_md_stage_bad", "		if (0)\n			remap_md_stage_bad")],
    "main written without being durable": [
        (TARGET, "				  flush ? 0 : REQ_FUA);\n	if (status)\n		atomic64_inc(&r->nr_main_write_errors);",
         "				  0);\n	flush = false;\n	if (status)\n		atomic64_inc(&r->nr_main_write_errors);")],
    "slot in use written for FUA without a flush": [(TARGET, "	r->spare_unflushed |= remap_io(part->bio)->fua;\n", "")],
    "batch not committed before a second write to its blocks": [
        (TARGET, "	if (remap_in_batch(r, all.block, all.count)) {", "	if (0 && remap_in_batch(r, all.block, all.count)) {")],
    "write with FUA that failed once acknowledged": [
        (TARGET, "	remap_md_tell_loss(r->md, REMAP_ROLE_MAIN);\n	return BLK_STS_IOERR;", "	return BLK_STS_OK;")],
    "main not asked": [(TARGET, "	if (!remap_main_answers(r, part->block + r->bad[0].offset)) {", "	if (0) {")],
    "writes pass before the epoch is raised": [
        (TARGET, "	else if (bio_list_peek(&bios) && remap_activate(r))\n", "	else if (0 && remap_activate(r))\n")],
    "flush sent to one member only": [(TARGET, "	ti->num_flush_bios = 2;", "	ti->num_flush_bios = 1;")],
    "message does not wait for writes": [
        (TARGET, "	WRITE_ONCE(r->claim_count, count);\n	remap_drain(r);\n", "	WRITE_ONCE(r->claim_count, count);\n")],
    "message does not hold new writes": [(TARGET, "	WRITE_ONCE(r->claim_count, count);\n", "	WRITE_ONCE(r->claim_count, 0 * count);\n")],
    "slots given out while they are read": [
        (TARGET, "	remap_map_publish(&r->map);\n	remap_drain(r);\n", "	remap_map_publish(&r->map);\n")],
    "forget does not make the main durable": [
        (TARGET, "	if (remap_write_main(r, &part) || remap_flush_main(r) != REMAP_FLUSHED ||\n",
         "	if (remap_write_part(r, &part, r->main->bdev, sector, 0) ||\n")],
    "forget does not compare": [(TARGET, "	if (memcmp(r->buf[0], r->buf[1], bytes)) {", "	if (0) {")],
    "entries given back though the commit has begun": [(TARGET, "	if (began) {\n		remap_batch_in_doubt", "	if (0) {\n		remap_batch_in_doubt")],
    "entries of a failed commit not taken back": [(TARGET, "		remap_map_abandon(&r->map);\n		remap_drop_batch(r);\n",
                                                   "		remap_map_abandon(&r->map);\n")],
    "oldest of two entries wins": [(METADATA, "		if (remap_seq_newer(group[i].seq, group[best].seq))\n			best = i;",
                                    "		if (remap_seq_newer(group[best].seq, group[i].seq))\n			best = i;")],
    "pair of entries not settled on disk": [(METADATA, "		if (i != best)\n			remap_md_stage_bad(md, group[i].slot, EIO);",
                                             "		if (i != best)\n			(void)md;")],
    "length kept though no superblock has it": [(METADATA, "	if (r)\n		md->table_length = old;\n", "")],
    "only one of the old entries of a block in doubt marked bad": [
        (TARGET, "		while (r->moves[i].was_doubtful && remap_has_other_slot(r, &r->moves[i], &other))\n"
         "			remap_md_stage_bad(r->md, other, EIO);\n", "		(void)other;\n		(void)remap_has_other_slot;\n")],
    "record behind a failed flush not refused": [
        (TARGET, "		(io->fua && test_and_clear_bit(REMAP_F_FLUSH_FAILED, &r->flags));", "		0;\n	(void)io;")],
    "entries beyond the length not refused": [(METADATA, "	if (!r)\n		r = remap_check_end(md);\n", "	(void)remap_check_end;\n")],
    "reserved slots given out": [(METADATA, "	if (slot >= remap_slots_initialised(md) || remap_slot_reserved(md, slot))",
                                  "	if (slot >= remap_slots_initialised(md))")],
    "old spare accepted": [(METADATA, "	if (best > high) {", "	if (0) {")],
    "old main accepted": [(METADATA, "	if (best < low) {", "	if (0) {")],
    "commit goes on after its flush has failed": [(METADATA, "	r = remap_flush_spare(md, losses);\n	if (r)\n		return r;\n\n	gen",
                                                   "	remap_flush_spare(md, losses);\n\n	gen")],
    "extension not flushed": [(METADATA, "	r = flush ? remap_flush_spare(md, losses) : 0;\n	if (r)\n		return r;\n	md->live", "	r = 0;\n	(void)losses;\n	md->live")],
    "superblock not durable": [(METADATA, "	r = remap_io_sync(bdev, REQ_OP_WRITE | (flush ? 0 : REQ_FUA), sector, buf, bytes);\n	return r || !flush ? r : remap_flush_since(md, role, losses);",
                                "	(void)losses;\n	r = remap_io_sync(bdev, REQ_OP_WRITE, sector, buf, bytes);\n	(void)flush;\n	return r;")],
    "lost block readable before it was written": [(METADATA, "state == REMAP_ENTRY_MAPPED ? REMAP_AT_SLOT : REMAP_IS_LOST,", "REMAP_AT_SLOT,")],
}

# What ctest runs each time.
RUNS = (["--scripts"], ["--states", "15000"])


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
