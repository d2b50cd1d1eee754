/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * On-disk format of dm-remap, version 1.
 *
 * The one definition of what lies on the members of a set, included by the
 * kernel module and by the tools.  docs/format.md explains it and holds test
 * vectors.
 *
 * Everything is little-endian.  A "sector" is 512 bytes, always; a "block" is
 * the unit of remapping, 512 or 4096 bytes (the main's logical block size);
 * positions on a device are in sectors unless a comment says otherwise.
 * Reserved bytes are zero and lie under the CRC.
 *
 * Checksum of every structure: CRC-32 as zlib's crc32(), over the whole
 * structure with its crc field taken as zero, continued from
 * crc32(0, set_uuid[16] | nonce as 8 little-endian bytes).  A structure of
 * another set, or of this set before it was formatted anew, never verifies.
 */
#ifndef DM_REMAP_FORMAT_H
#define DM_REMAP_FORMAT_H

#ifdef __KERNEL__
#include <linux/build_bug.h>
#include <linux/stddef.h>
#include <linux/types.h>
#else
#include <assert.h>
#include <linux/types.h>
#include <stddef.h>
#endif

#define REMAP_VERSION			1

#define REMAP_MAGIC_SIZE		16
/* Superblock and label; filler; table block (8 bytes). */
#define REMAP_MAGIC			"\x8fRemapSet\r\n\x1a\n\xa7\xd2\x5e"
#define REMAP_FILLER_MAGIC		"\x8fRemapFil\r\n\x1a\n\xa7\xd2\x5e"
#define REMAP_TABLE_MAGIC_SIZE		8
#define REMAP_TABLE_MAGIC		"RmapTbl\x1a"

#define REMAP_SECTOR_SHIFT		9
#define REMAP_UUID_SIZE			16

#define REMAP_SB_COPIES			5
/* A change of the superblock counts when it is on this many copies. */
#define REMAP_SB_QUORUM			3
#define REMAP_SB_SIZE			4096
#define REMAP_SB_SECTORS		8

#define REMAP_LABEL_SIZE		512
#define REMAP_MAX_LABELS		16

#define REMAP_MAX_MEMBERS		8
#define REMAP_MAX_HIDDEN		64
#define REMAP_MAX_SEGMENTS		8
#define REMAP_MIN_TABLE_COPIES		2
#define REMAP_MAX_TABLE_COPIES		4

#define REMAP_TABLE_BLOCK_SIZE		4096
#define REMAP_TABLE_BLOCK_SECTORS	8
#define REMAP_TABLE_HEADER_SIZE		64
#define REMAP_ENTRIES_PER_BLOCK		252

/* The smallest spare: superblocks, two table copies, a few slots (1 MiB). */
#define REMAP_MIN_SPARE_SECTORS		2048
#define REMAP_MAX_SLOTS			0x4000000ULL

/* Main block numbers have 48 bits in an entry. */
#define REMAP_MAX_MAIN_BLOCKS		0x1000000000000ULL

/* head.role */
enum remap_role {
	REMAP_ROLE_SPARE	= 1,	/* superblock */
	REMAP_ROLE_MAIN		= 2,	/* label, filler */
};

/* head.state of a superblock or label; the kernel opens only COMPLETE */
enum remap_set_state {
	REMAP_STATE_COMPLETE	= 1,
	REMAP_STATE_ADOPTING	= 2,
	REMAP_STATE_RELEASING	= 3,
	REMAP_STATE_MIGRATING	= 4,
};

/* head.flags of a superblock */
#define REMAP_FLAG_BARE			0x00000001U /* no label, no epoch on the main */
#define REMAP_FLAG_LABEL_FROZEN		0x00000002U /* no label place could be written */
#define REMAP_FLAG_READ_ONLY		0x00000004U /* a loss awaits confirmation */
#define REMAP_FLAGS_KNOWN		0x00000007U

/*
 * Feature words.  An unknown compat bit may be ignored, an unknown ro_compat
 * bit allows reading only, an unknown incompat bit allows nothing.
 */
#define REMAP_COMPAT_KNOWN		0ULL
#define REMAP_RO_COMPAT_KNOWN		0ULL
#define REMAP_INCOMPAT_KNOWN		0ULL

/* What superblock, label and filler begin with. */
struct remap_head {
	__u8	magic[REMAP_MAGIC_SIZE];
	__le32	crc;
	__le32	version;
	__u8	role;			/* enum remap_role */
	__u8	copy;			/* number of this copy */
	__u8	state;			/* enum remap_set_state; filler: 0 */
	__u8	block_shift;		/* 9 or 12 */
	__le32	flags;
	__le64	compat;
	__le64	ro_compat;
	__le64	incompat;
	__le64	generation;		/* high 32 bits: the epoch */
	__u8	set_uuid[REMAP_UUID_SIZE];
	__le64	nonce;			/* random, new at every format */
	__le64	position;		/* sector where this copy lies */
	__u8	member_uuid[REMAP_UUID_SIZE];	/* the device it lies on */
	__u8	partner_uuid[REMAP_UUID_SIZE];	/* the other one */
};

/*
 * Label: in the main's hidden blocks at the places which the superblock names
 * in label_sector[].  In a block of 4096 bytes the rest is zero.
 */
struct remap_label {
	struct remap_head head;
	__le32	epoch;
	__le32	reserved0;
	__le64	main_size;		/* sectors */
	__u8	reserved1[REMAP_LABEL_SIZE - 144];
};

/* Filler: in every other hidden block.  In a block of 4096 the rest is zero. */
struct remap_filler {
	struct remap_head head;		/* generation 0, state 0, copy 0 */
	__u8	reserved[REMAP_LABEL_SIZE - 128];
};

/* A run of hidden blocks of the main. */
struct remap_hidden {
	__le64	start;			/* block */
	__le32	count;			/* blocks */
	__u8	flags;			/* REMAP_HIDDEN_* */
	__u8	reserved[3];
};

/* At least one block of the run could not be overwritten on the main. */
#define REMAP_HIDDEN_EXPOSED		0x01

/* Where table and data of one range of slots lie. */
struct remap_segment {
	__u8	member;			/* index into members[] */
	__u8	nr_copies;		/* of the table */
	__u8	reserved[6];
	__le64	table_start[REMAP_MAX_TABLE_COPIES];	/* sectors */
	__le64	first_slot;
	__le64	nr_slots;
	__le64	data_start;		/* sector of first_slot */
};

#define REMAP_WWN_SIZE			56
#define REMAP_SERIAL_SIZE		56
#define REMAP_PARTUUID_SIZE		40

/* Text fields are padded with NUL and need not end with one. */
struct remap_member {
	__u8	uuid[REMAP_UUID_SIZE];
	__u8	role;			/* enum remap_role */
	__u8	state;			/* 1: in use */
	__u8	reserved0[6];
	__le64	size;			/* sectors, when recorded */
	char	wwn[REMAP_WWN_SIZE];
	char	serial[REMAP_SERIAL_SIZE];
	char	partuuid[REMAP_PARTUUID_SIZE];
	__u8	reserved1[8];
};

#define REMAP_MEMBER_IN_USE		1
#define REMAP_TEXT_SIZE			64
#define REMAP_TOOL_SIZE			40

/* Superblock: REMAP_SB_COPIES copies on the spare. */
struct remap_superblock {
	struct remap_head head;
	__le32	epoch;
	__le32	label_epoch;		/* last one known to be on the main */
	__u8	nr_members;
	__u8	nr_segments;
	__u8	nr_hidden;
	__u8	nr_labels;
	__u8	live_copies;		/* bit n: table copy n is live */
	__u8	reserved0[3];
	__le64	main_size;		/* sectors, whole blocks */
	__le64	spare_size;		/* sectors at format */
	__le64	table_length;		/* initialised table blocks */
	__le64	sb_sector[REMAP_SB_COPIES];
	__le64	created;		/* unix seconds */
	__le64	updated;		/* unix seconds */
	__le64	deciding_sector;	/* on the main; bare: 0 */
	__le64	label_sector[REMAP_MAX_LABELS];	/* on the main, ascending */
	char	label[REMAP_TEXT_SIZE];	/* UTF-8, padded with NUL */
	char	tool[REMAP_TOOL_SIZE];	/* version of the writer */
	__u8	reserved1[48];
	struct remap_hidden hidden[REMAP_MAX_HIDDEN];	/* ascending */
	struct remap_segment segments[REMAP_MAX_SEGMENTS];
	struct remap_member members[REMAP_MAX_MEMBERS];
	__u8	reserved2[512];
};

/* Entry of one slot, as two little-endian words. */
struct remap_entry {
	__le64	lo;	/* main block 0-47, state 48-55, cause 56-63 */
	__le64	hi;	/* sequence 0-23, errno 24-31, unix seconds 32-63 */
};

#define REMAP_ENTRY_BLOCK_BITS		48
#define REMAP_ENTRY_BLOCK_MASK		((1ULL << 48) - 1)
#define REMAP_ENTRY_STATE_SHIFT		48
#define REMAP_ENTRY_CAUSE_SHIFT		56
#define REMAP_ENTRY_SEQ_BITS		24
#define REMAP_ENTRY_SEQ_MASK		((1U << 24) - 1)
#define REMAP_ENTRY_ERRNO_SHIFT		24
#define REMAP_ENTRY_TIME_SHIFT		32

enum remap_entry_state {
	REMAP_ENTRY_FREE	= 0,	/* all other bits zero */
	REMAP_ENTRY_MAPPED	= 1,
	REMAP_ENTRY_LOST	= 2,	/* reads fail until it is written */
	REMAP_ENTRY_BAD		= 3,	/* never use this slot */
};

enum remap_entry_cause {
	REMAP_CAUSE_NONE	= 0,
	REMAP_CAUSE_WRITE	= 1,	/* a write to the main failed */
	REMAP_CAUSE_MESSAGE	= 2,	/* asked for by message */
	REMAP_CAUSE_IMPORT	= 3,	/* from a list of bad sectors */
	REMAP_CAUSE_MIGRATION	= 4,	/* from an older format */
	REMAP_CAUSE_HIDDEN	= 5,	/* moved at adoption */
	REMAP_CAUSE_SLOT	= 6,	/* its former slot failed */
	REMAP_CAUSE_UNTESTED	= 7,	/* beside failures, not tested itself */
};

/* Table block: entries of slots index * 252 and on. */
struct remap_table_block {
	__u8	magic[REMAP_TABLE_MAGIC_SIZE];
	__le32	crc;
	__u8	copy;
	__u8	segment;
	__le16	in_use;			/* entries that are not free */
	__le64	index;
	__le64	generation;		/* high 32 bits: the epoch */
	__le64	position;		/* sector where this copy lies */
	__u8	reserved[24];
	struct remap_entry entries[REMAP_ENTRIES_PER_BLOCK];
};

/*
 * Sector of superblock copy @copy on a spare of @size sectors: at 4 KiB, at
 * the quarters, and in the last 8 KiB.  The superblock records its places
 * too, which counts once the device has another size.
 */
static inline __u64 remap_sb_place(__u64 size, unsigned int copy)
{
	size &= ~(__u64)(REMAP_SB_SECTORS - 1);

	switch (copy) {
	case 0:
		return REMAP_SB_SECTORS;
	case 1:
		return (size >> 2) & ~(__u64)(REMAP_SB_SECTORS - 1);
	case 2:
		return (size >> 1) & ~(__u64)(REMAP_SB_SECTORS - 1);
	case 3:
		return (size - (size >> 2)) & ~(__u64)(REMAP_SB_SECTORS - 1);
	default:
		return size - REMAP_SB_SECTORS;
	}
}

/* Is sequence @a newer than @b, in serial-number arithmetic of 24 bits? */
static inline int remap_seq_newer(__u32 a, __u32 b)
{
	__u32 d = (a - b) & REMAP_ENTRY_SEQ_MASK;

	return d && d < (1U << (REMAP_ENTRY_SEQ_BITS - 1));
}

static_assert(sizeof(struct remap_head) == 128, "head");
static_assert(offsetof(struct remap_head, crc) == 16, "head.crc");
static_assert(offsetof(struct remap_head, compat) == 32, "head.compat");
static_assert(offsetof(struct remap_head, generation) == 56, "head.generation");
static_assert(offsetof(struct remap_head, set_uuid) == 64, "head.set_uuid");
static_assert(offsetof(struct remap_head, position) == 88, "head.position");
static_assert(offsetof(struct remap_head, member_uuid) == 96, "head.member_uuid");
static_assert(sizeof(struct remap_label) == REMAP_LABEL_SIZE, "label");
static_assert(offsetof(struct remap_label, main_size) == 136, "label.main_size");
static_assert(sizeof(struct remap_filler) == REMAP_LABEL_SIZE, "filler");
static_assert(sizeof(struct remap_hidden) == 16, "hidden");
static_assert(sizeof(struct remap_segment) == 64, "segment");
static_assert(offsetof(struct remap_segment, first_slot) == 40, "segment.first_slot");
static_assert(sizeof(struct remap_member) == 192, "member");
static_assert(offsetof(struct remap_member, wwn) == 32, "member.wwn");
static_assert(sizeof(struct remap_superblock) == REMAP_SB_SIZE, "superblock");
static_assert(offsetof(struct remap_superblock, epoch) == 128, "sb.epoch");
static_assert(offsetof(struct remap_superblock, main_size) == 144, "sb.main_size");
static_assert(offsetof(struct remap_superblock, table_length) == 160, "sb.table_length");
static_assert(offsetof(struct remap_superblock, sb_sector) == 168, "sb.sb_sector");
static_assert(offsetof(struct remap_superblock, created) == 208, "sb.created");
static_assert(offsetof(struct remap_superblock, deciding_sector) == 224, "sb.deciding_sector");
static_assert(offsetof(struct remap_superblock, label_sector) == 232, "sb.label_sector");
static_assert(offsetof(struct remap_superblock, label) == 360, "sb.label");
static_assert(offsetof(struct remap_superblock, tool) == 424, "sb.tool");
static_assert(offsetof(struct remap_superblock, hidden) == 512, "sb.hidden");
static_assert(offsetof(struct remap_superblock, segments) == 1536, "sb.segments");
static_assert(offsetof(struct remap_superblock, members) == 2048, "sb.members");
static_assert(sizeof(struct remap_entry) == 16, "entry");
static_assert(sizeof(struct remap_table_block) == REMAP_TABLE_BLOCK_SIZE, "table block");
static_assert(offsetof(struct remap_table_block, index) == 16, "table.index");
static_assert(offsetof(struct remap_table_block, position) == 32, "table.position");
static_assert(offsetof(struct remap_table_block, entries) == REMAP_TABLE_HEADER_SIZE,
	      "table.entries");

#endif /* DM_REMAP_FORMAT_H */
