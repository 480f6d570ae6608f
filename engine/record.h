/*
 * Recording: what the scheduler was told and what it planned, in a file that
 * replay.h reads.  See record.c.
 *
 * A recording begins with the scheduler, for what it plans follows from all
 * calls since then, and ends with it, or earlier: at its size limit, or when
 * the disk cannot keep up.  It never holds up who calls the scheduler.
 */
#ifndef RECORD_H
#define RECORD_H

#include "record_file.h"
#include "sched.h"

#include <stddef.h>
#include <stdint.h>

typedef struct recorder_s recorder_t;

/*
 * Begins a recording in the file at path, which only its owner may read; what
 * a file of that name held is kept under path with ".old" behind it.  limit is
 * in bytes.  All memory is taken here.  NULL with one sentence in err.
 */
recorder_t *record_open(const char *path, uint64_t limit,
    const record_head_t *h, char *err, size_t errlen);

/*
 * Starts the thread that writes; 0, or -1 with err.  Without one, the thread
 * that calls record_tell writes, whenever there is enough.
 */
int record_start(recorder_t *rec, char *err, size_t errlen);

/* For sched_tap, with the recorder as arg: takes no lock, makes no system call
 * if there is a thread that writes. */
void record_tell(void *rec, const sched_call_t *c);

/* When no more calls are told: writes the rest.  Bytes of the file. */
uint64_t record_close(recorder_t *rec);

/* Is it still recording, as far as the one who tells knows? */
int record_on(const recorder_t *rec);

#endif
