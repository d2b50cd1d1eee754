/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The line between the two halves of the model: the kernel's code on its shim
 * (C), and the simulated disks and the harness (C++).
 */
#ifndef MODEL_H
#define MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Disks: the kernel's side sends requests, the harness answers them ---- */

struct model_disk {
	const char *name;
	uint64_t sectors;
	unsigned int logical_block_size;
	unsigned int physical_block_size;
	bool write_cache;
	bool fua;
	void *simulation;		/* the harness's */
};

enum model_op { MODEL_READ, MODEL_WRITE, MODEL_FLUSH, MODEL_DISCARD };

/* What a request ends with. */
enum model_status {
	MODEL_OK,
	MODEL_IOERR,
	MODEL_MEDIUM,
	MODEL_TARGET,
	MODEL_TIMEOUT,
	MODEL_TRANSPORT,
	MODEL_NOSPC,
	MODEL_NOTSUPP,
	MODEL_REQUEUE,			/* of the target, never of a disk */
};

struct model_io {
	struct model_disk *disk;
	enum model_op op;
	bool fua;
	uint64_t sector;
	uint32_t bytes;
	void *data;			/* filled by a read */
	enum model_status status;
	void (*done)(struct model_io *io);
	void *private_data;
};

/* Harness: take a request; done() is called later, never from within. */
void model_submit(struct model_io *io);

/*
 * Harness: let the world go on by one step, while kernel code waits for
 * something.  Ends the program if nothing can ever happen again.
 */
void model_step(void);

/* Harness: what the kernel's code prints. */
void model_log(const char *line);

/* Harness: should this allocation fail? */
bool model_allocation_fails(void);

/* Harness: the kernel's code did what no kernel would survive. */
void model_bug(const char *file, int line, const char *what) __attribute__((noreturn));

/* ---- The kernel's side ---- */

extern unsigned long volatile jiffies;
extern uint64_t model_seconds;		/* real time */

bool model_work_pending(void);		/* an item is queued and its queue is idle */
void model_run_work(void);		/* run one */

struct model_target;

struct model_table {
	const char *argv[16];
	unsigned int argc;
	uint64_t length;		/* sectors */
	bool read_only;
	struct model_disk *main;	/* "main" in argv */
	struct model_disk *spare;	/* "spare" */
};

/* The constructor; NULL and a text if it refuses. */
struct model_target *model_create(const struct model_table *table, const char **error);
int model_resume(struct model_target *target);
/* What is in flight may have to be waited for; afterwards nothing is. */
void model_suspend(struct model_target *target, bool noflush);
void model_destroy(struct model_target *target);
void model_get_status(struct model_target *target, bool table, char *result, unsigned int size);
int model_message(struct model_target *target, unsigned int argc, char **argv, char *result,
		  unsigned int size);
unsigned int model_in_flight(const struct model_target *target);
unsigned int model_events(void);	/* dm events so far */

/* device-mapper as in Linux 6.1: the data behind a flush that failed is sent all the same. */
extern bool model_drops_flush_errors;

/* Bios from above. */
struct model_request {
	enum model_op op;
	bool preflush, fua;
	uint64_t sector;
	uint32_t bytes;
	void *data;			/* aligned to a page */
	enum model_status status;
	void (*done)(struct model_request *request);
	void *private_data;
};

void model_send(struct model_target *target, struct model_request *request);

/* Nothing of the kernel's is left allocated or queued. */
bool model_clean(void);

#ifdef __cplusplus
}
#endif

#endif /* MODEL_H */
