// SPDX-License-Identifier: GPL-2.0-only
/*
 * Metadata of dm-remap, see dm-remap-metadata.h and docs/format.md.
 *
 * The table is held in memory as it lies on disk, as far as it is
 * initialised, and a change is staged there first.  A block that
 * differs from what is known to be durable on every live copy carries the
 * mark REMAP_DIRTY and is part of the next commit.
 */
#include <linux/bio.h>
#include <linux/crc32.h>
#include <linux/device-mapper.h>
#include <linux/highmem.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>
#include <linux/uuid.h>
#include <linux/vmalloc.h>
#include <linux/xarray.h>

#include "compat.h"
#include "dm-remap-metadata.h"

#define DM_MSG_PREFIX "remap"

#define REMAP_DIRTY		XA_MARK_0

/* The table is read in pieces of 1 MiB. */
#define REMAP_READ_BLOCKS	256

/* New table blocks: a quarter more, within these bounds. */
#define REMAP_EXTEND_MIN	16
#define REMAP_EXTEND_MAX	256

/* More hidden blocks than any payload could ask for. */
#define REMAP_MAX_HIDDEN_BLOCKS	0x100000ULL

/* A commit this long after the epoch was raised raises it again. */
#define REMAP_EPOCH_LIFE	(3600UL * HZ)

/* The largest thing read or written through io_buf: superblock, label's block. */
#define REMAP_IO_SIZE		4096

/* What differs between superblock copies lies before this. */
#define REMAP_SB_IDENTITY_END	offsetof(struct remap_superblock, epoch)

struct remap_reserved {
	u64 first, end;			/* slots that overlap a superblock copy */
};

struct remap_md {
	char name[BDEVNAME_SIZE + 64];
	struct block_device *main;
	struct block_device *spare;

	struct remap_superblock *sb;	/* as last read or written */
	void *io_buf;			/* REMAP_IO_SIZE bytes, for synchronous I/O */
	u32 seed;			/* CRC of set UUID and nonce */
	u64 generation;			/* highest in use anywhere */
	u32 label_epoch;		/* highest seen or written on the main */
	unsigned int labels;		/* bit n: place n has it */
	bool no_label;			/* needs none that can be read */
	u64 raised;			/* jiffies_64 */

	unsigned int block_shift;	/* log2 of bytes */
	unsigned int sectors_shift;	/* log2 of sectors of a block */
	u64 nr_blocks;
	unsigned int nr_copies;
	unsigned int live;		/* bit n: table copy n */
	u64 table_start[REMAP_MAX_TABLE_COPIES];
	u64 table_blocks;		/* that fit, of each copy */
	u64 table_length;		/* initialised */
	u64 nr_slots;
	u64 nr_reserved;
	sector_t data_start;
	struct remap_reserved reserved[REMAP_SB_COPIES];

	struct xarray table;		/* index -> struct remap_table_block */
	u32 next_seq;
	u64 cursor;			/* slot to look for a free one from */
	u32 group;			/* slots of a physical block of the spare */
	u64 last_block;			/* of the last allocation */
	u64 last_slot;

	u64 any_cursor;			/* the same, once no whole group is left */

	u64 nr_mapped, nr_lost, nr_bad, nr_hidden;
	bool read_only;			/* until the table is loaded again */
	bool failing;			/* the last attempt to write failed */
	bool sb_pending;		/* not on a quorum as it is in memory */
	bool epoch_own;			/* raised since the superblocks were read */
	bool sb_degraded;
	unsigned long cache_lost;	/* bit enum remap_role: the next flush has to fail */
	atomic_t losses[REMAP_ROLE_MAIN + 1];	/* flushes that failed, anybody's */
	atomic_t holders[REMAP_ROLE_MAIN + 1];	/* of flushes, see remap_md_hold_flushes() */
	bool losses_kept;		/* a commit failed, and none has succeeded since */
	int kept_losses;		/* of the spare, before its slots were written */
	bool touched;			/* the last commit has written to the table */
};

int remap_io_sync(struct block_device *bdev, blk_opf_t opf, sector_t sector,
		  void *buf, unsigned int bytes)
{
	struct bio_vec bvec;
	struct bio bio;
	int r;

	bio_init(&bio, bdev, &bvec, 1, opf | REQ_SYNC);
	bio.bi_iter.bi_sector = sector;
	__bio_add_page(&bio, virt_to_page(buf), bytes, offset_in_page(buf));
	r = submit_bio_wait(&bio);
	bio_uninit(&bio);
	return r;
}

bool remap_fua_is_flush(struct block_device *bdev)
{
	return bdev_write_cache(bdev) && !bdev_fua(bdev);
}

int remap_md_losses(const struct remap_md *md, enum remap_role role)
{
	return atomic_read(&md->losses[role]);
}

void remap_md_count_loss(struct remap_md *md, enum remap_role role)
{
	atomic_inc(&md->losses[role]);
}

void remap_md_tell_loss(struct remap_md *md, enum remap_role role)
{
	set_bit(role, &md->cache_lost);
}

void remap_md_cache_lost(struct remap_md *md, enum remap_role role)
{
	remap_md_count_loss(md, role);
	remap_md_tell_loss(md, role);
}

bool remap_md_take_cache_lost(struct remap_md *md, enum remap_role role)
{
	return unlikely(test_bit(role, &md->cache_lost)) &&
		test_and_clear_bit(role, &md->cache_lost);
}

void remap_md_hold_flushes(struct remap_md *md, enum remap_role role)
{
	atomic_inc(&md->holders[role]);
}

void remap_md_let_flushes(struct remap_md *md, enum remap_role role)
{
	/* Whoever sees this sees a loss that was told before. */
	atomic_dec_return_release(&md->holders[role]);
}

bool remap_md_flushes_held(const struct remap_md *md, enum remap_role role)
{
	return unlikely(atomic_read_acquire(&md->holders[role]));
}

int remap_md_flush(struct remap_md *md, enum remap_role role)
{
	int r;

	remap_md_hold_flushes(md, role);
	r = blkdev_issue_flush(role == REMAP_ROLE_MAIN ? md->main : md->spare);
	if (r)
		remap_md_cache_lost(md, role);
	remap_md_let_flushes(md, role);
	return r;
}

/*
 * Flush what was written since the losses were @losses.  If this or any other
 * flush since then failed, it may be gone.
 */
static int remap_flush_since(struct remap_md *md, enum remap_role role, int losses)
{
	int r = remap_md_flush(md, role);

	if (!r && remap_md_losses(md, role) != losses)
		r = -EIO;
	return r;
}

/*
 * Write @buf durably.  Where FUA would only be a flush behind the write, the
 * flush is sent by itself, because its error means something else: a device
 * reports the loss of its cache only once, and if it does so to us the next
 * flush from above has to hear of it.
 */
static int remap_write_durable(struct remap_md *md, enum remap_role role, sector_t sector,
			       void *buf, unsigned int bytes)
{
	struct block_device *bdev = role == REMAP_ROLE_MAIN ? md->main : md->spare;
	bool flush = remap_fua_is_flush(bdev);
	int losses = remap_md_losses(md, role);
	int r;

	r = remap_io_sync(bdev, REQ_OP_WRITE | (flush ? 0 : REQ_FUA), sector, buf, bytes);
	return r || !flush ? r : remap_flush_since(md, role, losses);
}

static struct bio *remap_alloc_read(struct block_device *bdev, sector_t sector,
				    unsigned int blocks)
{
	struct bio *bio = bio_alloc(bdev, blocks, REQ_OP_READ | REQ_SYNC, GFP_KERNEL);

	bio->bi_iter.bi_sector = sector;
	return bio;
}

/* Read @nr table blocks into blocks of their own, from kmalloc(). */
static int remap_read_blocks(struct block_device *bdev, sector_t sector,
			     struct remap_table_block **blocks, unsigned int nr)
{
	struct bio *bio = remap_alloc_read(bdev, sector, nr);
	unsigned int i;
	int r;

	for (i = 0; i < nr; i++)
		__bio_add_page(bio, virt_to_page(blocks[i]), sizeof(**blocks),
			       offset_in_page(blocks[i]));
	r = submit_bio_wait(bio);
	bio_put(bio);
	return r;
}

/* zlib's crc32(), continued from @prev. */
static u32 remap_crc(u32 prev, const void *p, size_t n)
{
	return ~crc32_le(~prev, p, n);
}

static u32 remap_seed(const u8 *set_uuid, __le64 nonce)
{
	return remap_crc(remap_crc(0, set_uuid, REMAP_UUID_SIZE), &nonce, sizeof(nonce));
}

/* CRC of a structure of @n bytes whose crc field is at @at. */
static u32 remap_struct_crc(u32 seed, const void *p, size_t n, size_t at)
{
	static const __le32 zero;
	u32 crc = remap_crc(seed, p, at);

	crc = remap_crc(crc, &zero, sizeof(zero));
	at += sizeof(zero);
	return remap_crc(crc, p + at, n - at);
}

static bool remap_head_valid(const struct remap_head *head, size_t size, u32 seed)
{
	return !memcmp(head->magic, REMAP_MAGIC, REMAP_MAGIC_SIZE) &&
		le32_to_cpu(head->crc) ==
			remap_struct_crc(seed, head, size, offsetof(struct remap_head, crc));
}

static void remap_head_seal(struct remap_head *head, size_t size, u32 seed)
{
	head->crc = cpu_to_le32(remap_struct_crc(seed, head, size,
						 offsetof(struct remap_head, crc)));
}

/* ---- Superblocks: reading ---- */

struct remap_sb_scan {
	struct remap_superblock *best;
	unsigned int nr_valid;		/* copies as new as @best */
	bool newer_version;
	bool strange_version;		/* beside a bad checksum */
	bool conflict;			/* equal generation, other content */
	bool other_group;
	u64 torn[2 * REMAP_SB_COPIES];	/* generations in copies with a bad checksum */
	unsigned int nr_torn;
};

/* Equal but for crc, copy and position? */
static bool remap_sb_same(const struct remap_superblock *a, const struct remap_superblock *b)
{
	struct remap_head x = a->head, y = b->head;

	x.crc = y.crc;
	x.copy = y.copy;
	x.position = y.position;
	return !memcmp(&x, &y, sizeof(x)) &&
		!memcmp((const u8 *)a + REMAP_SB_IDENTITY_END,
			(const u8 *)b + REMAP_SB_IDENTITY_END,
			sizeof(*a) - REMAP_SB_IDENTITY_END);
}

static void remap_scan_sb(struct remap_md *md, sector_t sector, unsigned int copy,
			  struct remap_sb_scan *scan)
{
	struct remap_superblock *sb = md->io_buf;
	const struct remap_head *head = &sb->head;
	u64 gen, best;
	bool valid;
	int r;

	if (sector + REMAP_SB_SECTORS > bdev_nr_sectors(md->spare))
		return;

	r = remap_io_sync(md->spare, REQ_OP_READ, sector, sb, REMAP_SB_SIZE);
	if (r) {
		DMWARN("%s: spare: superblock copy %u at sector %llu: read error %d",
		       md->name, copy, (unsigned long long)sector, r);
		return;
	}
	if (memcmp(head->magic, REMAP_MAGIC, REMAP_MAGIC_SIZE))
		return;
	valid = remap_head_valid(head, REMAP_SB_SIZE, remap_seed(head->set_uuid, head->nonce));
	if (le32_to_cpu(head->version) != REMAP_VERSION) {
		DMERR("%s: spare: superblock copy %u at sector %llu: version %u, expected %u",
		      md->name, copy, (unsigned long long)sector,
		      le32_to_cpu(head->version), REMAP_VERSION);
		/* Another version may have another checksum; or this copy is damaged. */
		if (valid)
			scan->newer_version = true;
		else
			scan->strange_version = true;
		return;
	}
	if (!valid) {
		DMWARN("%s: spare: superblock copy %u at sector %llu: bad checksum",
		       md->name, copy, (unsigned long long)sector);
		scan->torn[scan->nr_torn++] = le64_to_cpu(head->generation);
		return;
	}
	if (head->role != REMAP_ROLE_SPARE || head->copy != copy ||
	    le64_to_cpu(head->position) != sector) {
		DMWARN("%s: spare: sector %llu: role %u, copy %u, sector %llu, not superblock %u",
		       md->name, (unsigned long long)sector, head->role, head->copy,
		       (unsigned long long)le64_to_cpu(head->position), copy);
		return;
	}

	if (!scan->nr_valid)
		goto take;
	if (memcmp(head->set_uuid, scan->best->head.set_uuid, REMAP_UUID_SIZE) ||
	    head->nonce != scan->best->head.nonce) {
		DMERR("%s: spare: superblock copy %u at sector %llu: set %pUb beside %pUb",
		      md->name, copy, (unsigned long long)sector, head->set_uuid,
		      scan->best->head.set_uuid);
		scan->other_group = true;
		return;
	}
	gen = le64_to_cpu(head->generation);
	best = le64_to_cpu(scan->best->head.generation);
	if (gen < best)
		return;
	if (gen == best) {
		if (remap_sb_same(sb, scan->best)) {
			scan->nr_valid++;
		} else {
			DMERR("%s: spare: superblock copies differ at generation %#llx",
			      md->name, (unsigned long long)gen);
			scan->conflict = true;
		}
		return;
	}
take:
	/* A conflict between older copies does not matter any more. */
	scan->conflict = false;
	scan->nr_valid = 1;
	memcpy(scan->best, sb, sizeof(*sb));
}

/* Was @sector already looked at as the place of @copy that size alone gives? */
static bool remap_sb_scanned(struct remap_md *md, sector_t sector, unsigned int copy)
{
	return remap_sb_place(bdev_nr_sectors(md->spare), copy) == sector;
}

static void remap_scan_spare(struct remap_md *md, struct remap_sb_scan *scan)
{
	u64 recorded[REMAP_SB_COPIES];
	unsigned int i;

	for (i = 0; i < REMAP_SB_COPIES; i++)
		remap_scan_sb(md, remap_sb_place(bdev_nr_sectors(md->spare), i), i, scan);
	if (!scan->nr_valid)
		return;

	/* The device may have had another size when it was formatted. */
	for (i = 0; i < REMAP_SB_COPIES; i++)
		recorded[i] = le64_to_cpu(scan->best->sb_sector[i]);
	for (i = 0; i < REMAP_SB_COPIES; i++)
		if (recorded[i] < bdev_nr_sectors(md->spare) &&
		    !remap_sb_scanned(md, recorded[i], i))
			remap_scan_sb(md, recorded[i], i, scan);
}

/*
 * A copy that a power cut has torn may be made whole by another write that is
 * torn, if that one has the same generation.  So no generation is used that any
 * copy names; but one that cannot be of this life of the set is no reason.
 */
static u64 remap_highest_generation(const struct remap_sb_scan *scan)
{
	u64 highest = le64_to_cpu(scan->best->head.generation);
	unsigned int i;

	for (i = 0; i < scan->nr_torn; i++)
		if (upper_32_bits(scan->torn[i]) <= le32_to_cpu(scan->best->epoch) + 1ULL &&
		    lower_32_bits(scan->torn[i]) <= S32_MAX)
			highest = max(highest, scan->torn[i]);
	return highest;
}

/* Says what the device given as spare is instead, for the message. */
static char *remap_what_is_it(struct remap_md *md)
{
	struct remap_label *label = md->io_buf;

	if (!remap_io_sync(md->spare, REQ_OP_READ, 0, label,
			   bdev_logical_block_size(md->spare)) &&
	    !memcmp(label->head.magic, REMAP_MAGIC, REMAP_MAGIC_SIZE) &&
	    label->head.role == REMAP_ROLE_MAIN) {
		DMERR("%s: the device given as spare is the main of set %pUb (swapped?)",
		      md->name, label->head.set_uuid);
		return "Device given as spare is the main of a set: swapped?";
	}
	DMERR("%s: no superblock of dm-remap on the spare", md->name);
	return "No valid superblock on the spare";
}

static const struct remap_member *remap_find_member(const struct remap_superblock *sb,
						    const u8 *uuid)
{
	unsigned int i;

	for (i = 0; i < sb->nr_members; i++)
		if (!memcmp(sb->members[i].uuid, uuid, REMAP_UUID_SIZE))
			return &sb->members[i];
	return NULL;
}

static bool remap_ranges_overlap(u64 a, u64 alen, u64 b, u64 blen)
{
	return a < b + blen && b < a + alen;
}

/* Both in sectors; neither sum can wrap once this is true. */
static bool remap_range_fits(u64 start, u64 len, u64 size)
{
	return start <= size && len <= size - start;
}

static bool remap_block_hidden(const struct remap_superblock *sb, u64 block)
{
	unsigned int i;

	for (i = 0; i < sb->nr_hidden; i++)
		if (block - le64_to_cpu(sb->hidden[i].start) < le32_to_cpu(sb->hidden[i].count))
			return true;
	return false;
}

static char *remap_check_hidden(struct remap_md *md, const struct remap_superblock *sb)
{
	u64 end = 0, total = 0;
	unsigned int i;

	for (i = 0; i < sb->nr_hidden; i++) {
		u64 start = le64_to_cpu(sb->hidden[i].start);
		u32 count = le32_to_cpu(sb->hidden[i].count);

		if (!count || start < end || !remap_range_fits(start, count, md->nr_blocks))
			return "Superblock: bad list of hidden blocks";
		end = start + count;
		total += count;
	}
	/* Each of them was given a slot. */
	if (total > md->nr_slots || total > REMAP_MAX_HIDDEN_BLOCKS)
		return "Superblock: too many hidden blocks";
	md->nr_hidden = total;

	for (i = 0; i < sb->nr_labels; i++) {
		u64 sector = le64_to_cpu(sb->label_sector[i]);

		/* Labels are written: never where the payload's data may be. */
		if (sector & ((1U << md->sectors_shift) - 1) ||
		    !remap_block_hidden(sb, sector >> md->sectors_shift))
			return "Superblock: bad label place";
	}
	return NULL;
}

/* Slots that overlap superblock copies are never used. */
static void remap_note_reserved(struct remap_md *md, const struct remap_superblock *sb)
{
	unsigned int i;

	md->nr_reserved = 0;
	for (i = 0; i < REMAP_SB_COPIES; i++) {
		u64 start = le64_to_cpu(sb->sb_sector[i]);
		u64 end = start + REMAP_SB_SECTORS;
		struct remap_reserved *res = &md->reserved[i];

		res->first = 0;
		res->end = 0;
		if (end <= md->data_start)
			continue;
		start = max_t(u64, start, md->data_start) - md->data_start;
		res->first = min(start >> md->sectors_shift, md->nr_slots);
		end = end - md->data_start + (1U << md->sectors_shift) - 1;
		res->end = min(end >> md->sectors_shift, md->nr_slots);
		md->nr_reserved += res->end - res->first;
	}
}

static char *remap_check_segment(struct remap_md *md, const struct remap_superblock *sb)
{
	const struct remap_segment *seg = &sb->segments[0];
	u64 size = bdev_nr_sectors(md->spare);
	u64 data_len, table_len;
	unsigned int i, j;

	if (seg->member >= sb->nr_members ||
	    memcmp(sb->members[seg->member].uuid, sb->head.member_uuid, REMAP_UUID_SIZE))
		return "Superblock: segment is not on this member";
	if (seg->nr_copies < REMAP_MIN_TABLE_COPIES || seg->nr_copies > REMAP_MAX_TABLE_COPIES)
		return "Superblock: bad number of table copies";
	md->nr_copies = seg->nr_copies;
	md->live = sb->live_copies;
	if (!md->live || md->live >> md->nr_copies)
		return "Superblock: bad set of live table copies";

	md->nr_slots = le64_to_cpu(seg->nr_slots);
	if (le64_to_cpu(seg->first_slot) || !md->nr_slots || md->nr_slots > REMAP_MAX_SLOTS)
		return "Superblock: bad range of slots";
	md->table_blocks = DIV_ROUND_UP_ULL(md->nr_slots, REMAP_ENTRIES_PER_BLOCK);
	md->table_length = le64_to_cpu(sb->table_length);
	if (!md->table_length || md->table_length > md->table_blocks)
		return "Superblock: bad length of the table";

	md->data_start = le64_to_cpu(seg->data_start);
	data_len = md->nr_slots << md->sectors_shift;
	table_len = md->table_blocks * REMAP_TABLE_BLOCK_SECTORS;
	if (md->data_start & (REMAP_TABLE_BLOCK_SECTORS - 1) ||
	    !remap_range_fits(md->data_start, data_len, size))
		return "Superblock: data area does not lie on the spare";

	for (i = 0; i < md->nr_copies; i++) {
		u64 start = le64_to_cpu(seg->table_start[i]);

		if (start & (REMAP_TABLE_BLOCK_SECTORS - 1) ||
		    !remap_range_fits(start, table_len, size) ||
		    remap_ranges_overlap(start, table_len, md->data_start, data_len))
			return "Superblock: table does not lie on the spare";
		for (j = 0; j < i; j++)
			if (remap_ranges_overlap(start, table_len, md->table_start[j], table_len))
				return "Superblock: table copies overlap";
		md->table_start[i] = start;
	}

	for (i = 0; i < REMAP_SB_COPIES; i++) {
		u64 start = le64_to_cpu(sb->sb_sector[i]);

		if (start & (REMAP_SB_SECTORS - 1))
			return "Superblock: bad place of a copy";
		for (j = 0; j < i; j++)
			if (start == le64_to_cpu(sb->sb_sector[j]))
				return "Superblock: two copies in one place";
		for (j = 0; j < md->nr_copies; j++)
			if (remap_ranges_overlap(start, REMAP_SB_SECTORS,
						 md->table_start[j], table_len))
				return "Superblock: a copy lies in the table";
	}
	remap_note_reserved(md, sb);
	return NULL;
}

/* NULL, or why this superblock cannot be used.  Fills the geometry in @md. */
static char *remap_check_sb(struct remap_md *md, const struct remap_superblock *sb)
{
	const struct remap_member *main, *spare;
	u64 main_size = le64_to_cpu(sb->main_size);
	char *reason;

	if (le64_to_cpu(sb->head.incompat) & ~REMAP_INCOMPAT_KNOWN)
		return "Superblock: unknown incompatible feature";
	if (le64_to_cpu(sb->head.ro_compat) & ~REMAP_RO_COMPAT_KNOWN)
		md->read_only = true;
	if (le32_to_cpu(sb->head.flags) & ~REMAP_FLAGS_KNOWN)
		return "Superblock: unknown flag";
	if (le32_to_cpu(sb->head.flags) & REMAP_FLAG_READ_ONLY)
		md->read_only = true;
	if (sb->head.state != REMAP_STATE_COMPLETE) {
		DMERR("%s: set %pUb: state %u, expected complete (%u): use remap-fsck --main",
		      md->name, sb->head.set_uuid, sb->head.state, REMAP_STATE_COMPLETE);
		return "Set is not complete";
	}
	if (sb->head.block_shift != 9 && sb->head.block_shift != 12)
		return "Superblock: bad block size";
	md->block_shift = sb->head.block_shift;
	md->sectors_shift = md->block_shift - SECTOR_SHIFT;

	if (sb->nr_members < 2 || sb->nr_members > REMAP_MAX_MEMBERS ||
	    sb->nr_segments != 1 || sb->nr_hidden > REMAP_MAX_HIDDEN ||
	    sb->nr_labels > REMAP_MAX_LABELS)
		return "Superblock: bad counts";
	main = remap_find_member(sb, sb->head.partner_uuid);
	spare = remap_find_member(sb, sb->head.member_uuid);
	if (!main || !spare || main->role != REMAP_ROLE_MAIN || spare->role != REMAP_ROLE_SPARE)
		return "Superblock: members do not name each other";
	if (le32_to_cpu(sb->label_epoch) > le32_to_cpu(sb->epoch))
		return "Superblock: label epoch above epoch";

	if (!main_size || main_size & ((1U << md->sectors_shift) - 1))
		return "Superblock: bad size of the main";
	md->nr_blocks = main_size >> md->sectors_shift;
	if (md->nr_blocks > REMAP_MAX_MAIN_BLOCKS)
		return "Superblock: bad size of the main";
	if (bdev_nr_sectors(md->main) < main_size) {
		DMERR("%s: main has %llu sectors, expected at least %llu", md->name,
		      (unsigned long long)bdev_nr_sectors(md->main),
		      (unsigned long long)main_size);
		return "Main is shorter than recorded";
	}
	if (bdev_logical_block_size(md->main) > 1U << md->block_shift ||
	    bdev_logical_block_size(md->spare) > 1U << md->block_shift)
		return "A member's logical block size is larger than the set's";

	reason = remap_check_segment(md, sb);
	if (!reason)
		reason = remap_check_hidden(md, sb);
	return reason;
}

/* ---- Labels ---- */

static bool remap_is_bare(const struct remap_md *md)
{
	return le32_to_cpu(md->sb->head.flags) & REMAP_FLAG_BARE;
}

static bool remap_label_frozen(const struct remap_md *md)
{
	return le32_to_cpu(md->sb->head.flags) & REMAP_FLAG_LABEL_FROZEN;
}

enum remap_label_verdict {
	REMAP_LABEL_UNREADABLE,
	REMAP_LABEL_NONE,	/* no valid label of ours */
	REMAP_LABEL_OURS,
	REMAP_LABEL_STRANGER,	/* valid, of another set or another member */
};

static enum remap_label_verdict remap_read_label(struct remap_md *md, unsigned int i,
						 u32 *epoch)
{
	const struct remap_superblock *sb = md->sb;
	u64 sector = le64_to_cpu(sb->label_sector[i]);
	const struct remap_label *label = md->io_buf;
	const struct remap_head *head = &label->head;

	if (remap_io_sync(md->main, REQ_OP_READ, sector, md->io_buf, 1U << md->block_shift))
		return REMAP_LABEL_UNREADABLE;
	if (memcmp(head->magic, REMAP_MAGIC, REMAP_MAGIC_SIZE) ||
	    head->role != REMAP_ROLE_MAIN ||
	    !remap_head_valid(head, REMAP_LABEL_SIZE, remap_seed(head->set_uuid, head->nonce)))
		return REMAP_LABEL_NONE;
	if (memcmp(head->set_uuid, sb->head.set_uuid, REMAP_UUID_SIZE) ||
	    head->nonce != sb->head.nonce ||
	    memcmp(head->member_uuid, sb->head.partner_uuid, REMAP_UUID_SIZE) ||
	    memcmp(head->partner_uuid, sb->head.member_uuid, REMAP_UUID_SIZE)) {
		DMERR("%s: label at sector %llu: set %pUb, spare %pUb, not set %pUb, spare %pUb",
		      md->name, (unsigned long long)sector, head->set_uuid, head->partner_uuid,
		      sb->head.set_uuid, sb->head.member_uuid);
		return REMAP_LABEL_STRANGER;
	}
	if (le32_to_cpu(head->version) != REMAP_VERSION ||
	    head->state != REMAP_STATE_COMPLETE || head->copy != i ||
	    le64_to_cpu(head->position) != sector)
		return REMAP_LABEL_NONE;

	*epoch = le32_to_cpu(label->epoch);
	return REMAP_LABEL_OURS;
}

/* Is the main the one that the superblock names, and of the same age? */
static char *remap_check_labels(struct remap_md *md)
{
	const struct remap_superblock *sb = md->sb;
	u32 low = le32_to_cpu(sb->label_epoch), high = le32_to_cpu(sb->epoch);
	u32 epoch, best = 0;
	unsigned int i, seen = 0, unreadable = 0;

	md->labels = 0;
	if (remap_is_bare(md))
		return sb->nr_hidden || sb->nr_labels ? "Superblock: bare set with labels" : NULL;
	if (!sb->nr_labels)
		return "Superblock: no label places";

	for (i = 0; i < sb->nr_labels; i++) {
		switch (remap_read_label(md, i, &epoch)) {
		case REMAP_LABEL_STRANGER:
			return "Main belongs to another set or another spare";
		case REMAP_LABEL_OURS:
			if (!seen || epoch > best)
				md->labels = 0;
			best = max(best, epoch);
			if (epoch == best)
				md->labels |= BIT(i);
			seen++;
			break;
		case REMAP_LABEL_UNREADABLE:
			unreadable++;
			break;
		case REMAP_LABEL_NONE:
			break;
		}
	}
	if (md->no_label && unreadable == sb->nr_labels) {
		DMWARN("%s: main: no label can be read: taken for the main of set %pUb as asked",
		       md->name, sb->head.set_uuid);
		md->label_epoch = low;
		return NULL;
	}
	if (!seen) {
		DMERR("%s: none of the %u label places of the main holds a label of set %pUb",
		      md->name, sb->nr_labels, sb->head.set_uuid);
		return "Main carries no label of this set";
	}
	if (best > high) {
		DMERR("%s: epoch %u on the main, %u on the spare: the spare is an old copy",
		      md->name, best, high);
		return "Spare is an old copy of the set's spare";
	}
	if (best < low) {
		DMERR("%s: epoch %u on the main, expected %u to %u: the main is an old copy",
		      md->name, best, low, high);
		return "Main is an old copy of the set's main";
	}
	md->label_epoch = best;
	return NULL;
}

unsigned int remap_md_label_sectors(const struct remap_md *md, sector_t *sectors,
				    unsigned int max)
{
	unsigned int i, nr = min_t(unsigned int, md->sb->nr_labels, max);

	for (i = 0; i < nr; i++)
		sectors[i] = le64_to_cpu(md->sb->label_sector[i]);
	return nr;
}

static void remap_build_label(struct remap_md *md, unsigned int i)
{
	const struct remap_superblock *sb = md->sb;
	struct remap_label *label = md->io_buf;

	memset(md->io_buf, 0, REMAP_IO_SIZE);
	label->head = sb->head;
	label->head.role = REMAP_ROLE_MAIN;
	label->head.copy = i;
	label->head.flags = 0;
	label->head.position = sb->label_sector[i];
	memcpy(label->head.member_uuid, sb->head.partner_uuid, REMAP_UUID_SIZE);
	memcpy(label->head.partner_uuid, sb->head.member_uuid, REMAP_UUID_SIZE);
	label->epoch = sb->epoch;
	label->main_size = sb->main_size;
	remap_head_seal(&label->head, REMAP_LABEL_SIZE, md->seed);
}

static bool remap_write_label(struct remap_md *md, unsigned int i)
{
	u64 sector = le64_to_cpu(md->sb->label_sector[i]);
	int r;

	remap_build_label(md, i);
	r = remap_write_durable(md, REMAP_ROLE_MAIN, sector, md->io_buf, 1U << md->block_shift);
	if (r)
		DMWARN("%s: main: label at sector %llu: write error %d", md->name,
		       (unsigned long long)sector, r);
	return !r;
}

/*
 * Bring the labels to the superblock's epoch, last place first.  Those that
 * have the newest epoch so far come after all others: it may be one alone
 * that a power cut has left, and must not be torn before there is another.
 * Returns whether any was written.
 */
static bool remap_write_labels(struct remap_md *md)
{
	const unsigned int passes[] = { ~md->labels, md->labels };
	unsigned int done = 0, pass, i;

	for (pass = 0; pass < ARRAY_SIZE(passes); pass++)
		for (i = md->sb->nr_labels; i--;)
			if (passes[pass] & BIT(i) && remap_write_label(md, i))
				done |= BIT(i);
	if (done)
		md->labels = done;
	return done;
}

/* ---- Superblocks: writing ---- */

static u64 remap_next_generation(struct remap_md *md)
{
	u64 base = (u64)le32_to_cpu(md->sb->epoch) << 32;

	md->generation = max(md->generation + 1, base);
	return md->generation;
}

/*
 * Write the superblock with a new generation, one copy after the other, each
 * durable before the next.  Fewer than a quorum is a failure, and then what the set will say
 * after a power cut is open: nothing that depends on it may be acknowledged.
 */
static int remap_write_sbs(struct remap_md *md)
{
	struct remap_superblock *sb = md->sb;
	unsigned int i, done = 0;
	int r;

	sb->live_copies = md->live;
	sb->table_length = cpu_to_le64(md->table_length);
	sb->updated = cpu_to_le64(ktime_get_real_seconds());
	sb->head.generation = cpu_to_le64(remap_next_generation(md));

	for (i = 0; i < REMAP_SB_COPIES; i++) {
		u64 sector = le64_to_cpu(sb->sb_sector[i]);

		sb->head.copy = i;
		sb->head.position = sb->sb_sector[i];
		remap_head_seal(&sb->head, REMAP_SB_SIZE, md->seed);
		if (sector + REMAP_SB_SECTORS > bdev_nr_sectors(md->spare))
			r = -ENXIO;
		else
			r = remap_write_durable(md, REMAP_ROLE_SPARE, sector, sb, REMAP_SB_SIZE);
		if (r)
			DMERR("%s: spare: superblock copy %u at sector %llu: write error %d",
			      md->name, i, (unsigned long long)sector, r);
		else
			done++;
	}
	md->sb_degraded = done < REMAP_SB_COPIES;
	if (done >= REMAP_SB_QUORUM) {
		md->sb_pending = false;
		return 0;
	}
	md->sb_pending = true;
	DMERR("%s: spare: %u of %u superblock copies written, %u are needed", md->name, done,
	      REMAP_SB_COPIES, REMAP_SB_QUORUM);
	return -EIO;
}

/*
 * Record on the superblock which epoch the labels have.  What was only read
 * may be in the main's cache, from a write that had failed: the spare must not
 * ask for an epoch that the main can lose.  A lower one is more tolerant.
 */
static void remap_record_label_epoch(struct remap_md *md)
{
	__le32 epoch = cpu_to_le32(md->label_epoch);

	if (remap_is_bare(md) || md->sb->label_epoch == epoch)
		return;
	if (!remap_md_flush(md, REMAP_ROLE_MAIN))
		md->sb->label_epoch = epoch;
}

/*
 * Raise the epoch: spare, then the main's labels, then the spare again, which
 * notes that the labels have it.  If that was begun and did not get to its
 * end, it goes on with the same epoch; but not with one that was read, because
 * an image of the spare may have been taken meanwhile.
 */
static int remap_raise_epoch(struct remap_md *md)
{
	struct remap_superblock *sb = md->sb;
	u32 epoch = le32_to_cpu(sb->epoch);
	int r;

	if (!md->epoch_own || remap_is_bare(md) || remap_label_frozen(md) ||
	    md->label_epoch == epoch) {
		if (epoch == U32_MAX) {
			DMERR("%s: no epoch left", md->name);
			return -EROFS;
		}
		sb->epoch = cpu_to_le32(epoch + 1);
		md->epoch_own = true;
		remap_record_label_epoch(md);
		md->sb_pending = true;
	}
	/* Labels never get ahead of what most of the superblocks say. */
	if (md->sb_pending) {
		r = remap_write_sbs(md);
		if (r)
			return r;
	}
	if (!remap_is_bare(md)) {
		if (remap_write_labels(md)) {
			md->label_epoch = le32_to_cpu(sb->epoch);
			sb->label_epoch = sb->epoch;
			sb->head.flags &= ~cpu_to_le32(REMAP_FLAG_LABEL_FROZEN);
		} else {
			DMWARN("%s: main: no label could be written: label is frozen at epoch %u",
			       md->name, md->label_epoch);
			sb->head.flags |= cpu_to_le32(REMAP_FLAG_LABEL_FROZEN);
		}
		r = remap_write_sbs(md);
		if (r)
			return r;
	}
	md->raised = get_jiffies_64();
	return 0;
}

/* ---- Open ---- */

static int remap_read_sbs(struct remap_md *md, char **reason)
{
	struct remap_sb_scan scan = { .best = md->sb };

	md->read_only = false;
	md->epoch_own = false;
	remap_scan_spare(md, &scan);
	if (scan.newer_version || (scan.strange_version && !scan.nr_valid)) {
		*reason = "Spare has a newer format version";
		return -EINVAL;
	}
	if (!scan.nr_valid) {
		*reason = remap_what_is_it(md);
		return -EINVAL;
	}
	if (scan.other_group) {
		*reason = "Spare holds superblocks of two sets: use remap-fsck";
		return -EINVAL;
	}
	if (scan.conflict) {
		*reason = "Superblock copies contradict each other: use remap-fsck";
		return -EINVAL;
	}
	*reason = remap_check_sb(md, md->sb);
	if (*reason)
		return -EINVAL;

	md->seed = remap_seed(md->sb->head.set_uuid, md->sb->head.nonce);
	md->generation = remap_highest_generation(&scan);
	md->sb_degraded = scan.nr_valid < REMAP_SB_COPIES;
	md->sb_pending = scan.nr_valid < REMAP_SB_QUORUM;
	*reason = remap_check_labels(md);
	return *reason ? -EINVAL : 0;
}

struct remap_md *remap_md_open(struct block_device *main, struct block_device *spare,
			       const char *name, bool no_label, char **reason)
{
	struct remap_md *md;
	int r = -ENOMEM;

	*reason = "Out of memory";
	md = kzalloc(sizeof(*md), GFP_KERNEL);
	if (!md)
		return ERR_PTR(r);
	xa_init(&md->table);
	if (bdev_logical_block_size(main) > REMAP_IO_SIZE ||
	    bdev_logical_block_size(spare) > REMAP_IO_SIZE) {
		*reason = "A member's logical blocks are larger than 4096 bytes";
		r = -EINVAL;
		goto bad;
	}
	strscpy(md->name, name, sizeof(md->name));
	md->main = main;
	md->spare = spare;
	md->no_label = no_label;
	md->sb = kmalloc(REMAP_SB_SIZE, GFP_KERNEL);
	md->io_buf = kmalloc(REMAP_IO_SIZE, GFP_KERNEL);
	if (!md->sb || !md->io_buf)
		goto bad;

	r = remap_read_sbs(md, reason);
	if (r)
		goto bad;
	md->group = max_t(u32, bdev_physical_block_size(spare) >> md->block_shift, 1);
	return md;

bad:
	remap_md_close(md);
	return ERR_PTR(r);
}

static void remap_drop_table(struct remap_md *md)
{
	unsigned long index;
	void *page;

	xa_for_each(&md->table, index, page)
		kfree(page);
	xa_destroy(&md->table);
}

void remap_md_close(struct remap_md *md)
{
	remap_drop_table(md);
	kfree(md->io_buf);
	kfree(md->sb);
	kfree(md);
}

/* ---- Table: entries ---- */

static enum remap_entry_state remap_entry_state(const struct remap_entry *e)
{
	return (le64_to_cpu(e->lo) >> REMAP_ENTRY_STATE_SHIFT) & 0xff;
}

static u64 remap_entry_block(const struct remap_entry *e)
{
	return le64_to_cpu(e->lo) & REMAP_ENTRY_BLOCK_MASK;
}

static u32 remap_entry_seq(const struct remap_entry *e)
{
	return le64_to_cpu(e->hi) & REMAP_ENTRY_SEQ_MASK;
}

static struct remap_entry *remap_entry(struct remap_md *md, u64 slot)
{
	struct remap_table_block *tb;
	u64 index = div_u64(slot, REMAP_ENTRIES_PER_BLOCK);

	tb = xa_load(&md->table, index);
	return tb ? &tb->entries[slot - index * REMAP_ENTRIES_PER_BLOCK] : NULL;
}

static bool remap_slot_reserved(const struct remap_md *md, u64 slot)
{
	unsigned int i;

	for (i = 0; i < REMAP_SB_COPIES; i++)
		if (slot >= md->reserved[i].first && slot < md->reserved[i].end)
			return true;
	return false;
}

static u64 remap_slots_initialised(const struct remap_md *md)
{
	return min(md->table_length * REMAP_ENTRIES_PER_BLOCK, md->nr_slots);
}

static bool remap_slot_free(struct remap_md *md, u64 slot)
{
	const struct remap_entry *e;

	if (slot >= remap_slots_initialised(md) || remap_slot_reserved(md, slot))
		return false;
	e = remap_entry(md, slot);
	return e && !e->lo && !e->hi;
}

static void remap_count(struct remap_md *md, const struct remap_entry *e, int by)
{
	switch (remap_entry_state(e)) {
	case REMAP_ENTRY_MAPPED:
		md->nr_mapped += by;
		break;
	case REMAP_ENTRY_LOST:
		md->nr_lost += by;
		break;
	case REMAP_ENTRY_BAD:
		md->nr_bad += by;
		break;
	default:
		break;
	}
}

/*
 * Put an entry into the table in memory, to be part of the next commit; @was
 * (may be NULL) gets what was there.
 */
static void remap_put_entry(struct remap_md *md, u64 slot, const struct remap_entry *entry,
			    struct remap_entry *was)
{
	u64 index = div_u64(slot, REMAP_ENTRIES_PER_BLOCK);
	struct remap_table_block *tb = xa_load(&md->table, index);
	struct remap_entry *e = &tb->entries[slot - index * REMAP_ENTRIES_PER_BLOCK];
	u16 in_use = le16_to_cpu(tb->in_use);

	if (was)
		*was = *e;
	in_use -= remap_entry_state(e) != REMAP_ENTRY_FREE;
	in_use += remap_entry_state(entry) != REMAP_ENTRY_FREE;
	remap_count(md, e, -1);
	remap_count(md, entry, 1);
	*e = *entry;
	tb->in_use = cpu_to_le16(in_use);
	xa_set_mark(&md->table, index, REMAP_DIRTY);
}

static void remap_stage(struct remap_md *md, u64 slot, enum remap_entry_state state,
			u64 block, u32 seq, enum remap_entry_cause cause, int err,
			struct remap_entry *was)
{
	u64 hi = seq & REMAP_ENTRY_SEQ_MASK;
	struct remap_entry entry;

	hi |= (u64)(err & 0xff) << REMAP_ENTRY_ERRNO_SHIFT;
	hi |= (u64)(u32)ktime_get_real_seconds() << REMAP_ENTRY_TIME_SHIFT;
	entry.lo = cpu_to_le64(block | (u64)state << REMAP_ENTRY_STATE_SHIFT |
			       (u64)cause << REMAP_ENTRY_CAUSE_SHIFT);
	entry.hi = cpu_to_le64(hi);
	remap_put_entry(md, slot, &entry, was);
}

void remap_md_stage_block(struct remap_md *md, u32 slot, u64 block,
			  enum remap_entry_state state, u32 old_slot,
			  enum remap_entry_cause cause, int err, struct remap_entry *was)
{
	const struct remap_entry *old = NULL;
	u32 seq = md->next_seq;

	if (old_slot != REMAP_NO_SLOT && old_slot != slot)
		old = remap_entry(md, old_slot);
	/* After a wrap of the counter a very old entry could look newer. */
	if (old && !remap_seq_newer(seq, remap_entry_seq(old)))
		seq = (remap_entry_seq(old) + 1) & REMAP_ENTRY_SEQ_MASK;
	else
		md->next_seq = (seq + 1) & REMAP_ENTRY_SEQ_MASK;
	remap_stage(md, slot, state, block, seq, cause, err, was);
}

void remap_md_stage_free(struct remap_md *md, u32 slot, struct remap_entry *was)
{
	static const struct remap_entry nothing;

	remap_put_entry(md, slot, &nothing, was);
}

void remap_md_unstage(struct remap_md *md, u32 slot, const struct remap_entry *was)
{
	remap_put_entry(md, slot, was, NULL);
	if (remap_entry_state(was) == REMAP_ENTRY_FREE)
		remap_md_unalloc(md, slot);
}

u32 remap_md_find_slot(struct remap_md *md, u64 block, u32 except)
{
	struct remap_table_block *tb;
	unsigned long index;
	unsigned int i;
	u32 slot;

	xa_for_each(&md->table, index, tb) {
		for (i = 0; i < REMAP_ENTRIES_PER_BLOCK; i++) {
			enum remap_entry_state state = remap_entry_state(&tb->entries[i]);

			slot = index * REMAP_ENTRIES_PER_BLOCK + i;
			if (slot != except && remap_entry_block(&tb->entries[i]) == block &&
			    (state == REMAP_ENTRY_MAPPED || state == REMAP_ENTRY_LOST))
				return slot;
		}
		cond_resched();
	}
	return REMAP_NO_SLOT;
}

void remap_md_stage_bad(struct remap_md *md, u32 slot, int err)
{
	const struct remap_entry *e = remap_entry(md, slot);

	remap_stage(md, slot, REMAP_ENTRY_BAD, remap_entry_block(e), remap_entry_seq(e),
		    REMAP_CAUSE_SLOT, err, NULL);
}

sector_t remap_md_slot_sector(struct remap_md *md, u32 slot)
{
	return md->data_start + ((sector_t)slot << md->sectors_shift);
}

/* ---- Table: writing ---- */

static sector_t remap_table_sector(const struct remap_md *md, unsigned int copy, u64 index)
{
	return md->table_start[copy] + index * REMAP_TABLE_BLOCK_SECTORS;
}

static int remap_flush_spare(struct remap_md *md, int losses)
{
	int r = remap_flush_since(md, REMAP_ROLE_SPARE, losses);

	if (r)
		DMERR_LIMIT("%s: spare: flush error %d", md->name, r);
	return r;
}

static int remap_write_table_block(struct remap_md *md, struct remap_table_block *tb,
				   u64 index, unsigned int copy, blk_opf_t flags)
{
	sector_t sector = remap_table_sector(md, copy, index);
	int r;

	tb->copy = copy;
	tb->position = cpu_to_le64(sector);
	tb->crc = cpu_to_le32(remap_struct_crc(md->seed, tb, sizeof(*tb),
					       offsetof(struct remap_table_block, crc)));
	r = remap_io_sync(md->spare, REQ_OP_WRITE | flags, sector, tb, sizeof(*tb));
	if (r)
		DMERR("%s: spare: table copy %u, block %llu at sector %llu: write error %d",
		      md->name, copy, (unsigned long long)index,
		      (unsigned long long)sector, r);
	return r;
}

/*
 * Write one copy of each table block with mark REMAP_DIRTY: the one behind
 * that which was written or loaded last.  Copies that fail go from *@good.
 */
static int remap_write_pass(struct remap_md *md, u64 gen, unsigned int *good)
{
	bool flush = remap_fua_is_flush(md->spare);
	int losses = remap_md_losses(md, REMAP_ROLE_SPARE);
	struct remap_table_block *tb;
	unsigned long index;
	unsigned int copy;

	xa_for_each_marked(&md->table, index, tb, REMAP_DIRTY) {
		tb->generation = cpu_to_le64(gen);
		copy = (tb->copy + 1) % md->nr_copies;
		if (!(*good & BIT(copy)))
			tb->copy = copy;
		else if (remap_write_table_block(md, tb, index, copy, flush ? 0 : REQ_FUA))
			*good &= ~BIT(copy);
	}
	return flush ? remap_flush_spare(md, losses) : 0;
}

/*
 * Flush what the entries point to, then write the live copies of the dirty
 * table blocks, each durable before the next one: whatever is torn, another
 * copy is whole.  The newest valid copy, which is the one written or loaded
 * last, is overwritten last.  Then record on the superblocks which copies have
 * no say any more, before anybody relies on the others.
 */
static int remap_write_dirty(struct remap_md *md, int losses)
{
	unsigned int good = md->live, i;
	u64 gen;
	int r;

	r = remap_flush_spare(md, losses);
	if (r)
		return r;

	gen = remap_next_generation(md);
	md->touched = true;
	for (i = 0; i < md->nr_copies; i++) {
		r = remap_write_pass(md, gen, &good);
		if (r)
			return r;
	}
	if (!good) {
		DMERR("%s: spare: no table copy could be written", md->name);
		return -EIO;
	}
	if (good != md->live) {
		DMWARN("%s: spare: table copies %#x are dead, %#x are left", md->name,
		       md->live & ~good, good);
		md->live = good;
		md->sb_pending = true;
	}
	return md->sb_pending ? remap_write_sbs(md) : 0;
}

static bool remap_table_dirty(struct remap_md *md)
{
	return xa_marked(&md->table, REMAP_DIRTY);
}

static void remap_clean_table(struct remap_md *md)
{
	unsigned long index;
	void *tb;

	xa_for_each_marked(&md->table, index, tb, REMAP_DIRTY)
		xa_clear_mark(&md->table, index, REMAP_DIRTY);
}

/*
 * The outcome of a commit is unknown.  If the slots that its entries name were
 * in a cache that was lost since, no later commit may make these entries good.
 */
static void remap_commit_failed(struct remap_md *md)
{
	if (remap_md_losses(md, REMAP_ROLE_SPARE) == md->kept_losses)
		return;
	DMERR("%s: spare: cache lost under a commit: metadata is read-only now", md->name);
	md->read_only = true;
}

int remap_md_commit(struct remap_md *md, int losses)
{
	bool kept = md->losses_kept;
	int r;

	md->touched = false;
	if (!remap_table_dirty(md))
		return 0;
	if (md->read_only)
		return -EROFS;
	/* What a failed commit left staged waits for this one as well. */
	if (kept)
		losses = md->kept_losses;
	md->kept_losses = losses;
	r = 0;
	if (time_after64(get_jiffies_64(), md->raised + REMAP_EPOCH_LIFE))
		r = remap_raise_epoch(md);
	if (!r)
		r = remap_write_dirty(md, losses);
	if (!r)
		remap_clean_table(md);
	md->losses_kept = r && (kept || md->touched);
	if (md->losses_kept)
		remap_commit_failed(md);
	md->failing = r;
	return r;
}

bool remap_md_commit_began(const struct remap_md *md)
{
	return md->touched;
}

int remap_md_activate(struct remap_md *md)
{
	int r;

	if (md->read_only)
		return -EROFS;
	r = remap_raise_epoch(md);
	if (!r)
		r = remap_md_commit(md, remap_md_losses(md, REMAP_ROLE_SPARE));
	md->failing = r;
	return r;
}

static void remap_init_table_block(struct remap_table_block *tb, u64 index)
{
	memset(tb, 0, sizeof(*tb));
	memcpy(tb->magic, REMAP_TABLE_MAGIC, REMAP_TABLE_MAGIC_SIZE);
	tb->index = cpu_to_le64(index);
}

static int remap_add_table_block(struct remap_md *md, u64 index)
{
	struct remap_table_block *tb;
	int r;

	if (xa_load(&md->table, index))
		return 0;
	tb = kmalloc(REMAP_TABLE_BLOCK_SIZE, REMAP_GFP);
	if (!tb)
		return -ENOMEM;
	remap_init_table_block(tb, index);
	r = xa_err(xa_store(&md->table, index, tb, REMAP_GFP));
	if (r)
		kfree(tb);
	return r;
}

/*
 * Initialise more of the table: new blocks on every live copy, then the
 * length on the superblocks, and only then may they be used.
 */
static int remap_extend_table(struct remap_md *md)
{
	u64 old = md->table_length, gen;
	u64 add = clamp_t(u64, old / 4, REMAP_EXTEND_MIN, REMAP_EXTEND_MAX);
	u64 end = min(old + add, md->table_blocks), index;
	unsigned int copy, good = 0;
	int losses = remap_md_losses(md, REMAP_ROLE_SPARE);
	bool flush = remap_fua_is_flush(md->spare);
	struct remap_table_block *tb;
	int r = 0;

	if (old == md->table_blocks)
		return -ENOSPC;
	if (md->read_only)
		return -EROFS;

	/* Beyond the length nobody looks, so they can be in memory already. */
	for (index = old; index < end && !r; index++)
		r = remap_add_table_block(md, index);
	if (r) {
		end = index - 1;
		if (end == old)
			return r;
	}

	gen = remap_next_generation(md);
	for (copy = 0; copy < md->nr_copies; copy++) {
		if (!(md->live & BIT(copy)))
			continue;
		for (index = old; index < end; index++) {
			tb = xa_load(&md->table, index);
			tb->generation = cpu_to_le64(gen);
			if (remap_write_table_block(md, tb, index, copy, flush ? 0 : REQ_FUA))
				break;
		}
		if (index == end)
			good |= BIT(copy);
	}
	if (!good)
		return -EIO;
	r = flush ? remap_flush_spare(md, losses) : 0;
	if (r)
		return r;
	md->live = good;
	md->table_length = end;
	r = remap_write_sbs(md);
	if (r)
		md->table_length = old;
	return r;
}

/* ---- Slots ---- */

/* Number of @slot's place within its physical block of the spare. */
static u32 remap_group_offset(const struct remap_md *md, u64 slot)
{
	return ((md->data_start >> md->sectors_shift) + slot) & (md->group - 1);
}

static bool remap_group_free(struct remap_md *md, u64 slot)
{
	u32 i;

	for (i = 0; i < md->group; i++)
		if (!remap_slot_free(md, slot + i))
			return false;
	return true;
}

/* First slot in [@from, @to) that begins a free group, or @to. */
static u64 remap_find_group(struct remap_md *md, u64 from, u64 to)
{
	struct remap_table_block *tb;
	u64 slot = from, index;

	while (slot < to) {
		index = div_u64(slot, REMAP_ENTRIES_PER_BLOCK);
		tb = xa_load(&md->table, index);
		if (!tb || le16_to_cpu(tb->in_use) == REMAP_ENTRIES_PER_BLOCK) {
			slot = (index + 1) * REMAP_ENTRIES_PER_BLOCK;
			continue;
		}
		if (!remap_group_offset(md, slot) && remap_group_free(md, slot))
			return slot;
		slot++;
	}
	return to;
}

/* First free slot in [@from, @to), or @to. */
static u64 remap_find_any(struct remap_md *md, u64 from, u64 to)
{
	u64 slot;

	for (slot = from; slot < to; slot++)
		if (remap_slot_free(md, slot))
			break;
	return slot;
}

/* How many of @max slots from @slot on can be given out together? */
static u32 remap_run_of_slots(struct remap_md *md, u64 slot, u32 max, bool group_only)
{
	u32 nr;

	for (nr = 1; nr < max; nr++) {
		if (!remap_group_offset(md, slot + nr) &&
		    (group_only || !remap_group_free(md, slot + nr)))
			break;
		if (!remap_slot_free(md, slot + nr))
			break;
	}
	return nr;
}

int remap_md_alloc(struct remap_md *md, u64 block, u32 max, u32 *slot)
{
	u64 end, found, next = md->last_slot + 1;
	u32 nr = 1;
	int r = 0;

	if (md->read_only)
		return -EROFS;

	if (block == md->last_block + 1 && next < remap_slots_initialised(md) &&
	    remap_group_offset(md, next) && remap_slot_free(md, next)) {
		found = next;
		nr = remap_run_of_slots(md, found, max, true);
		goto out;
	}

	for (;;) {
		end = remap_slots_initialised(md);
		found = remap_find_group(md, md->cursor, end);
		if (found < end) {
			nr = remap_run_of_slots(md, found, max, false);
			md->cursor = found + nr;
			goto out;
		}
		md->cursor = end;
		r = remap_extend_table(md);
		if (r)
			break;
	}
	found = remap_find_any(md, md->any_cursor, end);
	md->any_cursor = min(found + 1, end);
	if (found == end)
		return r;
out:
	md->last_block = block + nr - 1;
	md->last_slot = found + nr - 1;
	*slot = found;
	return nr;
}

void remap_md_unalloc(struct remap_md *md, u32 slot)
{
	u64 group = slot - min(slot, remap_group_offset(md, slot));

	md->cursor = min(md->cursor, group);
	md->any_cursor = min_t(u64, md->any_cursor, slot);
	md->last_block = U64_MAX - 1;
}

/* ---- Table: loading ---- */

/* Entries are sorted by digits of so many bits: two passes up to 2 TiB of sectors. */
#define REMAP_DIGIT_BITS	16
#define REMAP_DIGITS		BIT(REMAP_DIGIT_BITS)

/* Loops over entries are long; most of their turns are not. */
static void remap_breathe(size_t i)
{
	if (!(i & 0xffff))
		cond_resched();
}

static bool remap_table_block_valid(struct remap_md *md, const struct remap_table_block *tb,
				    unsigned int copy, u64 index)
{
	return !memcmp(tb->magic, REMAP_TABLE_MAGIC, REMAP_TABLE_MAGIC_SIZE) &&
		le32_to_cpu(tb->crc) ==
			remap_struct_crc(md->seed, tb, sizeof(*tb),
					 offsetof(struct remap_table_block, crc)) &&
		tb->copy == copy && !tb->segment && le64_to_cpu(tb->index) == index &&
		le64_to_cpu(tb->position) == remap_table_sector(md, copy, index);
}

static bool remap_table_block_same(const struct remap_table_block *a,
				   const struct remap_table_block *b)
{
	return a->in_use == b->in_use && !memcmp(a->entries, b->entries, sizeof(a->entries));
}

/* Buffers for a piece of the table, copy by copy; those that were chosen are NULL. */
struct remap_piece {
	struct remap_table_block *blocks[REMAP_MAX_TABLE_COPIES][REMAP_READ_BLOCKS];
	bool valid[REMAP_MAX_TABLE_COPIES];	/* all of this copy was read */
};

static int remap_alloc_piece(const struct remap_md *md, struct remap_piece *piece, unsigned int nr)
{
	unsigned int i, n;

	for (i = 0; i < md->nr_copies; i++) {
		for (n = 0; n < nr && md->live & BIT(i); n++) {
			if (!piece->blocks[i][n])
				piece->blocks[i][n] = kmalloc(REMAP_TABLE_BLOCK_SIZE, GFP_KERNEL);
			if (!piece->blocks[i][n])
				return -ENOMEM;
		}
	}
	return 0;
}

static void remap_free_piece(struct remap_piece *piece)
{
	unsigned int i, n;

	for (i = 0; i < REMAP_MAX_TABLE_COPIES; i++)
		for (n = 0; n < REMAP_READ_BLOCKS; n++)
			kfree(piece->blocks[i][n]);
	kvfree(piece);
}

/*
 * Choose among the copies of one table block.  @copies[n] is NULL for a copy
 * that is dead or could not be read.  Returns the number of the copy.
 */
static int remap_choose_copy(struct remap_md *md, u64 index,
			     struct remap_table_block *const *copies, bool *equal)
{
	const struct remap_table_block *best = NULL;
	unsigned int i;
	int choice = -EINVAL;

	*equal = true;
	for (i = 0; i < md->nr_copies; i++) {
		const struct remap_table_block *tb = copies[i];

		if (!(md->live & BIT(i)))
			continue;
		if (!tb || !remap_table_block_valid(md, tb, i, index)) {
			DMWARN("%s: spare: table copy %u, block %llu at sector %llu is %s",
			       md->name, i, (unsigned long long)index,
			       (unsigned long long)remap_table_sector(md, i, index),
			       tb ? "damaged" : "unreadable");
			*equal = false;
			continue;
		}
		if (best && tb->generation == best->generation) {
			if (remap_table_block_same(tb, best))
				continue;
			DMERR("%s: spare: copies of table block %llu differ at generation %#llx",
			      md->name, (unsigned long long)index,
			      (unsigned long long)le64_to_cpu(tb->generation));
			return -EINVAL;
		}
		if (best)
			*equal = false;
		if (!best || le64_to_cpu(tb->generation) > le64_to_cpu(best->generation)) {
			best = tb;
			choice = i;
		}
	}
	if (!best)
		DMERR("%s: spare: table block %llu has no valid copy: use remap-fsck",
		      md->name, (unsigned long long)index);
	return choice;
}

/* Take the best copy of block @n of @piece, which begins at @first, into the table. */
static int remap_take_block(struct remap_md *md, struct remap_piece *piece, u64 first,
			    unsigned int n)
{
	struct remap_table_block *copies[REMAP_MAX_TABLE_COPIES] = { }, *tb;
	u64 index = first + n;
	unsigned int i;
	int choice, r;
	bool equal;

	for (i = 0; i < md->nr_copies; i++) {
		if (!(md->live & BIT(i)))
			continue;
		/* Somewhere in the piece is a bad sector: one by one. */
		if (piece->valid[i] ||
		    !remap_read_blocks(md->spare, remap_table_sector(md, i, index),
				       &piece->blocks[i][n], 1))
			copies[i] = piece->blocks[i][n];
	}
	choice = remap_choose_copy(md, index, copies, &equal);
	if (choice < 0)
		return choice;

	tb = copies[choice];
	r = xa_err(xa_store(&md->table, index, tb, GFP_KERNEL));
	if (r)
		return r;
	piece->blocks[choice][n] = NULL;
	/* Made equal before the first write. */
	if (!equal)
		xa_set_mark(&md->table, index, REMAP_DIRTY);
	if (upper_32_bits(le64_to_cpu(tb->generation)) > le32_to_cpu(md->sb->epoch)) {
		DMERR("%s: spare: epoch %u in table block %llu, %u in the superblocks",
		      md->name, upper_32_bits(le64_to_cpu(tb->generation)),
		      (unsigned long long)index, le32_to_cpu(md->sb->epoch));
		return -EINVAL;
	}
	md->generation = max(md->generation, le64_to_cpu(tb->generation));
	return 0;
}

/* Read @nr table blocks of each live copy and choose. */
static int remap_load_piece(struct remap_md *md, struct remap_piece *piece, u64 first,
			    unsigned int nr)
{
	unsigned int i, n;
	int r;

	r = remap_alloc_piece(md, piece, nr);
	if (r)
		return r;
	for (i = 0; i < md->nr_copies; i++)
		if (md->live & BIT(i))
			piece->valid[i] = !remap_read_blocks(md->spare,
							     remap_table_sector(md, i, first),
							     piece->blocks[i], nr);
	for (n = 0; n < nr && !r; n++)
		r = remap_take_block(md, piece, first, n);
	return r;
}

static int remap_load_table(struct remap_md *md)
{
	struct remap_piece *piece = kvzalloc(sizeof(*piece), GFP_KERNEL);
	u64 index;
	int r = 0;

	BUILD_BUG_ON(REMAP_READ_BLOCKS > BIO_MAX_VECS);
	if (!piece)
		return -ENOMEM;
	for (index = 0; index < md->table_length && !r; index += REMAP_READ_BLOCKS) {
		r = remap_load_piece(md, piece, index,
				     min_t(u64, md->table_length - index, REMAP_READ_BLOCKS));
		cond_resched();
	}
	remap_free_piece(piece);
	return r;
}

/*
 * Slots are given out in order, so if the superblocks that were read are older
 * than the table, the first block beyond their length shows it.
 */
static int remap_check_end(struct remap_md *md)
{
	const struct remap_table_block *tb = md->io_buf;
	u64 index = md->table_length;
	unsigned int i;

	if (index == md->table_blocks)
		return 0;
	for (i = 0; i < md->nr_copies; i++) {
		if (!(md->live & BIT(i)) ||
		    remap_io_sync(md->spare, REQ_OP_READ, remap_table_sector(md, i, index),
				  md->io_buf, REMAP_TABLE_BLOCK_SIZE) ||
		    !remap_table_block_valid(md, tb, i, index) || !tb->in_use)
			continue;
		DMERR("%s: spare: entries in table block %llu, beyond the length: use remap-fsck",
		      md->name, (unsigned long long)index);
		return -EINVAL;
	}
	return 0;
}

static int remap_refuse_entry(const struct remap_md *md, u64 slot, const struct remap_entry *e,
			      const char *what)
{
	DMERR("%s: spare: entry of slot %llu %s (%#llx %#llx): use remap-fsck", md->name,
	      (unsigned long long)slot, what, (unsigned long long)le64_to_cpu(e->lo),
	      (unsigned long long)le64_to_cpu(e->hi));
	return -EINVAL;
}

/* Check an entry that is not all zeroes. */
static int remap_check_entry(const struct remap_md *md, u64 slot, const struct remap_entry *e)
{
	enum remap_entry_state state = remap_entry_state(e);
	const char *what;

	if (state == REMAP_ENTRY_FREE)
		what = "is free but not empty";
	else if (state > REMAP_ENTRY_BAD)
		what = "has an unknown state";
	else if (slot >= md->nr_slots)
		what = "lies beyond the last slot";
	else if (remap_entry_block(e) >= md->nr_blocks)
		what = "names a block beyond the main's end";
	else
		return 0;
	return remap_refuse_entry(md, slot, e, what);
}

/* Slots that overlap a superblock copy: their entries are free or bad. */
static int remap_check_reserved(struct remap_md *md)
{
	enum remap_entry_state state;
	const struct remap_entry *e;
	unsigned int i;
	u64 slot;

	for (i = 0; i < REMAP_SB_COPIES; i++) {
		for (slot = md->reserved[i].first; slot < md->reserved[i].end; slot++) {
			e = remap_entry(md, slot);
			if (!e)
				continue;
			state = remap_entry_state(e);
			if (state == REMAP_ENTRY_MAPPED || state == REMAP_ENTRY_LOST)
				return remap_refuse_entry(md, slot, e,
							  "names a slot that holds a superblock");
		}
	}
	return 0;
}

/* What loading collects of the table, to sort by main block. */
struct remap_found {
	struct remap_change *entries;
	size_t nr, max;
	u64 nr_state[REMAP_ENTRY_BAD + 1];
	bool any;			/* entry in use was seen */
};

/* The highest sequence so far, plus one. */
static u32 remap_next_seq(const struct remap_found *found, u32 next, u32 seq)
{
	if (!found->any || remap_seq_newer(seq + 1, next))
		return (seq + 1) & REMAP_ENTRY_SEQ_MASK;
	return next;
}

/*
 * Check every entry of a table block, count it, and collect what maps blocks.
 * Returns the number of entries in use.
 */
static int remap_collect_block(struct remap_md *md, const struct remap_table_block *tb, u64 slot,
			       struct remap_found *found)
{
	struct remap_change *to = found->entries + found->nr;
	enum remap_entry_state state;
	const struct remap_entry *e;
	u32 next_seq = md->next_seq;
	int used = 0, r;

	for (e = tb->entries; e < tb->entries + REMAP_ENTRIES_PER_BLOCK; e++, slot++) {
		if (!(e->lo | e->hi))
			continue;
		r = remap_check_entry(md, slot, e);
		if (r)
			return r;

		used++;
		state = remap_entry_state(e);
		found->nr_state[state]++;
		next_seq = remap_next_seq(found, next_seq, remap_entry_seq(e));
		found->any = true;
		if (state == REMAP_ENTRY_BAD)
			continue;
		*to++ = (struct remap_change) {
			.block = remap_entry_block(e),
			.slot = slot,
			.where = state == REMAP_ENTRY_MAPPED ? REMAP_AT_SLOT : REMAP_IS_LOST,
			.seq = remap_entry_seq(e),
		};
	}
	md->next_seq = next_seq;
	found->nr = to - found->entries;
	return used;
}

/* @found has room for all entries of the table. */
static int remap_collect(struct remap_md *md, struct remap_found *found)
{
	struct remap_table_block *tb;
	u64 index;
	int r;

	r = remap_check_reserved(md);
	if (r)
		return r;
	for (index = 0; index < md->table_length; index++) {
		tb = xa_load(&md->table, index);
		r = remap_collect_block(md, tb, index * REMAP_ENTRIES_PER_BLOCK, found);
		if (r < 0)
			return r;
		if (r != le16_to_cpu(tb->in_use)) {
			DMWARN_LIMIT("%s: spare: table block %llu has %d entries, says %u",
				     md->name, (unsigned long long)index, r,
				     le16_to_cpu(tb->in_use));
			/* Corrected on disk at the first write. */
			tb->in_use = cpu_to_le16(r);
			xa_set_mark(&md->table, index, REMAP_DIRTY);
		}
		cond_resched();
	}
	md->nr_mapped = found->nr_state[REMAP_ENTRY_MAPPED];
	md->nr_lost = found->nr_state[REMAP_ENTRY_LOST];
	md->nr_bad = found->nr_state[REMAP_ENTRY_BAD];
	return 0;
}

static bool remap_is_sorted(const struct remap_found *found)
{
	size_t i;

	for (i = 1; i < found->nr; i++) {
		if (found->entries[i].block < found->entries[i - 1].block)
			return false;
		remap_breathe(i);
	}
	return true;
}

/* Sort by one digit of the block; what is equal there keeps its order. */
static void remap_sort_digit(const struct remap_change *from, struct remap_change *to, size_t nr,
			     unsigned int shift, u32 *place)
{
	u32 sum = 0, count;
	size_t i;

	memset(place, 0, REMAP_DIGITS * sizeof(*place));
	for (i = 0; i < nr; i++) {
		place[(from[i].block >> shift) & (REMAP_DIGITS - 1)]++;
		remap_breathe(i);
	}
	for (i = 0; i < REMAP_DIGITS; i++) {
		count = place[i];
		place[i] = sum;
		sum += count;
	}
	for (i = 0; i < nr; i++) {
		to[place[(from[i].block >> shift) & (REMAP_DIGITS - 1)]++] = from[i];
		remap_breathe(i);
	}
}

/*
 * Sort by block, entries of one block by slot, as they were collected.  With
 * millions of them sort(), a heapsort, would take most of the time of loading.
 */
static int remap_sort(struct remap_md *md, struct remap_found *found)
{
	unsigned int shift, bits = fls64(md->nr_blocks - 1);
	struct remap_change *to;
	int r = -ENOMEM;
	u32 *place;

	if (remap_is_sorted(found))
		return 0;

	to = kvmalloc_array(found->max, sizeof(*to), GFP_KERNEL);
	place = kvmalloc_array(REMAP_DIGITS, sizeof(*place), GFP_KERNEL);
	if (!to || !place)
		goto out;
	for (shift = 0; shift < bits; shift += REMAP_DIGIT_BITS) {
		remap_sort_digit(found->entries, to, found->nr, shift, place);
		swap(found->entries, to);
	}
	r = 0;
out:
	kvfree(place);
	kvfree(to);
	return r;
}

/*
 * Several entries for one block, as a power cut leaves them between "new
 * entry durable" and "old slot marked bad": the newest wins, the others'
 * slots become bad.  If none is newer than all others the block is lost; the
 * entry with the lowest slot says so, and is written first.
 */
static void remap_settle(struct remap_md *md, struct remap_change *group, size_t nr)
{
	size_t i, best = 0;

	/* Whoever beats all others comes out of this, if there is one. */
	for (i = 1; i < nr; i++)
		if (remap_seq_newer(group[i].seq, group[best].seq))
			best = i;
	for (i = 0; i < nr; i++)
		if (i != best && !remap_seq_newer(group[best].seq, group[i].seq))
			best = nr;
	if (best == nr) {
		DMERR("%s: spare: %zu entries for main block %llu, none is the newest: it is lost",
		      md->name, nr, (unsigned long long)group[0].block);
		best = 0;
		group[0].where = REMAP_IS_LOST;
		remap_stage(md, group[0].slot, REMAP_ENTRY_LOST, group[0].block, group[0].seq,
			    REMAP_CAUSE_SLOT, EIO, NULL);
	}
	for (i = 0; i < nr; i++) {
		if (i != best)
			remap_md_stage_bad(md, group[i].slot, EIO);
		remap_breathe(i);
	}
	group[0] = group[best];
}

/* Index of the first entry that is followed by one for its block. */
static size_t remap_find_twins(const struct remap_change *entries, size_t nr)
{
	size_t i;

	for (i = 1; i < nr; i++) {
		if (entries[i - 1].block == entries[i].block)
			return i - 1;
		remap_breathe(i);
	}
	return nr;
}

/* Keep one entry for each block. */
static void remap_settle_all(struct remap_md *md, struct remap_found *found)
{
	struct remap_change *entries = found->entries;
	size_t out = remap_find_twins(entries, found->nr), i, j;

	for (i = out; i < found->nr; i = j) {
		for (j = i + 1; j < found->nr && entries[j].block == entries[i].block; j++)
			remap_breathe(j);
		if (j > i + 1)
			remap_settle(md, &entries[i], j - i);
		entries[out++] = entries[i];
		remap_breathe(i);
	}
	found->nr = out;
}

/*
 * Hidden blocks without an entry read as an error.  Returns whether there are
 * any; they are at the end then.
 */
static bool remap_add_hidden(struct remap_md *md, struct remap_found *found)
{
	size_t at = 0, nr = found->nr;
	unsigned int i;
	u64 block;
	u32 n;

	for (i = 0; i < md->sb->nr_hidden; i++) {
		block = le64_to_cpu(md->sb->hidden[i].start);
		for (n = le32_to_cpu(md->sb->hidden[i].count); n; n--, block++) {
			for (; at < nr && found->entries[at].block < block; at++)
				remap_breathe(at);
			if (at < nr && found->entries[at].block == block)
				continue;
			DMWARN_LIMIT("%s: hidden block %llu has no slot: it reads as an error",
				     md->name, (unsigned long long)block);
			found->entries[found->nr++] = (struct remap_change) {
				.block = block, .slot = REMAP_NO_SLOT, .where = REMAP_IS_LOST,
			};
		}
		cond_resched();
	}
	return found->nr > nr;
}

static int remap_fill_map(struct remap_md *md, struct remap_map *map)
{
	struct remap_found found = {
		.max = md->table_length * REMAP_ENTRIES_PER_BLOCK + md->nr_hidden,
	};
	int r;

	found.entries = kvmalloc_array(found.max, sizeof(*found.entries), GFP_KERNEL);
	if (!found.entries)
		return -ENOMEM;

	r = remap_collect(md, &found);
	if (!r)
		r = remap_sort(md, &found);
	if (r)
		goto out;
	remap_settle_all(md, &found);
	if (remap_add_hidden(md, &found))
		r = remap_sort(md, &found);
	if (!r)
		r = remap_map_fill(map, found.entries, found.nr);
out:
	kvfree(found.entries);
	return r;
}

int remap_md_load(struct remap_md *md, struct remap_map *map)
{
	u8 set_uuid[REMAP_UUID_SIZE];
	u64 nr_blocks = md->nr_blocks;
	unsigned int block_shift = md->block_shift;
	char *reason;
	int r;

	memcpy(set_uuid, md->sb->head.set_uuid, sizeof(set_uuid));
	remap_map_clear(map);
	remap_drop_table(md);
	md->nr_mapped = 0;
	md->nr_lost = 0;
	md->nr_bad = 0;
	md->next_seq = 0;
	md->cursor = 0;
	md->any_cursor = 0;
	md->last_block = U64_MAX - 1;
	md->last_slot = U64_MAX - 1;

	/* The constructor may have run long ago, beside another instance. */
	r = remap_read_sbs(md, &reason);
	if (r) {
		DMERR("%s: %s", md->name, reason);
		return r;
	}
	if (memcmp(set_uuid, md->sb->head.set_uuid, sizeof(set_uuid)) ||
	    nr_blocks != md->nr_blocks || block_shift != md->block_shift) {
		DMERR("%s: spare: set %pUb, but set %pUb when the table was loaded",
		      md->name, md->sb->head.set_uuid, set_uuid);
		return -EINVAL;
	}
	r = remap_load_table(md);
	if (!r)
		r = remap_check_end(md);
	if (!r)
		r = remap_fill_map(md, map);
	return r;
}

bool remap_md_writable(const struct remap_md *md)
{
	return !md->read_only;
}

/* ---- Checking ---- */

bool remap_md_hidden(const struct remap_md *md, u64 block, u64 count)
{
	const struct remap_superblock *sb = md->sb;
	unsigned int i;

	for (i = 0; i < sb->nr_hidden; i++)
		if (remap_ranges_overlap(block, count, le64_to_cpu(sb->hidden[i].start),
					 le32_to_cpu(sb->hidden[i].count)))
			return true;
	return false;
}

u64 remap_md_check_sbs(struct remap_md *md)
{
	const struct remap_superblock *sb = md->io_buf;
	u64 damaged = 0;
	unsigned int i;

	for (i = 0; i < REMAP_SB_COPIES; i++) {
		u64 sector = le64_to_cpu(md->sb->sb_sector[i]);

		if (sector + REMAP_SB_SECTORS <= bdev_nr_sectors(md->spare) &&
		    !remap_io_sync(md->spare, REQ_OP_READ, sector, md->io_buf, REMAP_SB_SIZE) &&
		    remap_head_valid(&sb->head, REMAP_SB_SIZE, md->seed) &&
		    sb->head.copy == i && le64_to_cpu(sb->head.position) == sector &&
		    remap_sb_same(sb, md->sb))
			continue;
		DMWARN("%s: spare: superblock copy %u at sector %llu is damaged or old",
		       md->name, i, (unsigned long long)sector);
		damaged++;
	}
	return damaged;
}

/* Is @tb, as read from @copy, what it should be? */
static bool remap_check_table_block(struct remap_md *md, const struct remap_table_block *tb,
				    unsigned int copy, u64 index)
{
	if (!remap_table_block_valid(md, tb, copy, index))
		return false;
	/* What is not committed yet differs from what is in memory. */
	return xa_get_mark(&md->table, index, REMAP_DIRTY) ||
		remap_table_block_same(tb, xa_load(&md->table, index));
}

u64 remap_md_check_table(struct remap_md *md, u64 index)
{
	struct remap_table_block *tb = md->io_buf;
	unsigned int copy;
	u64 damaged = 0;

	for (copy = 0; copy < md->nr_copies; copy++) {
		sector_t sector = remap_table_sector(md, copy, index);

		if (!(md->live & BIT(copy)) ||
		    (!remap_io_sync(md->spare, REQ_OP_READ, sector, tb, sizeof(*tb)) &&
		     remap_check_table_block(md, tb, copy, index)))
			continue;
		DMWARN_LIMIT("%s: spare: table copy %u, block %llu at sector %llu is damaged",
			     md->name, copy, (unsigned long long)index,
			     (unsigned long long)sector);
		damaged++;
	}
	return damaged;
}

void remap_md_info(const struct remap_md *md, struct remap_md_info *info)
{
	memcpy(info->set_uuid, md->sb->head.set_uuid, REMAP_UUID_SIZE);
	info->main_size = le64_to_cpu(md->sb->main_size);
	info->nr_blocks = md->nr_blocks;
	info->block_shift = md->block_shift;
	info->nr_copies = md->nr_copies;
	info->nr_live = hweight32(md->live);
	info->epoch = le32_to_cpu(md->sb->epoch);
	info->nr_used = min(md->nr_mapped + md->nr_lost + md->nr_bad,
			    md->nr_slots - md->nr_reserved);
	info->nr_slots = md->nr_slots - md->nr_reserved;
	info->nr_mapped = md->nr_mapped;
	info->nr_lost = md->nr_lost;
	info->nr_bad = md->nr_bad;
	info->nr_hidden = md->nr_hidden;
	info->table_length = md->table_length;
	info->read_only = md->read_only || md->failing;
	info->degraded = md->sb_degraded || info->nr_live < md->nr_copies ||
		remap_label_frozen(md) || (!remap_is_bare(md) && !md->labels);
}
