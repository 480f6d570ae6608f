/*
 * Would catch: a recording that makes the reader of engine/record_file.c or
 * replay_read.c read outside of a frame, the replay make a call that the
 * scheduler asserts against, or either keep or take memory without bound.
 *
 * The input is what follows the magic, and its sums are put right, so that what
 * is inside of frames is reached.  It is replayed as it is, and its requests
 * with another policy and budget.
 */
#include "replay.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST = 1 << 20 };


/* What must hold, also where assert() is compiled out. */
static void
must(int holds)
{
    if (!holds) {
        abort();
    }
}


/* Puts the sums of all frames right. */
static void
mend(uint8_t *p, size_t n)
{
    size_t at = sizeof(RECORD_MAGIC) - 1 + 4, len;

    while (n > at && n - at > RECORD_FRAME) {
        len = (size_t) p[at] | (size_t) p[at + 1] << 8
              | (size_t) p[at + 2] << 16 | (size_t) p[at + 3] << 24;
        if (len == 0 || len > n - at - RECORD_FRAME || len > RECORD_FRAME_MAX) {
            return;
        }
        record_frame(p + at, p + at + RECORD_FRAME, len);
        at += RECORD_FRAME + len;
    }
}


/* Would it take no more memory than a test may? */
static int
small(FILE *f)
{
    record_head_t h;
    char err[256];
    record_file_t *rf = record_file_open(f, &h, err, sizeof(err));

    if (rf == NULL) {
        must(err[0] != '\0' && strchr(err, '\n') == NULL);
        return 0;
    }
    record_file_close(rf);
    rewind(f);

    return h.reqs <= 64 && h.blocks <= 4096 && h.context <= 4096;
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t lead = sizeof(RECORD_MAGIC) - 1;
    replay_change_t change = REPLAY_NO_CHANGE;
    char err[256] = "", path[32];
    replay_stats_t st;
    uint8_t *p;
    FILE *f, *null;
    int rc;

    if (size == 0 || size > MOST) {
        return 0;
    }
    null = fopen("/dev/null", "we");
    must(null != NULL);
    p = malloc(lead + size);
    must(p != NULL);
    memcpy(p, RECORD_MAGIC, lead);
    memcpy(p + lead, data, size);
    mend(p, lead + size);
    f = tmpfile();
    must(f != NULL && fwrite(p, 1, lead + size, f) == lead + size);
    rewind(f);

    if (small(f)) {
        rc = replay_calls(f, &change, null, &st, err, sizeof(err));
        must((rc == 0) == (err[0] == '\0'));
        must(rc != 0 || st.ends != NULL);

        snprintf(path, sizeof(path), "/dev/fd/%d", fileno(f));
        change.policy = "fcfs";
        change.tokens = 16;
        (void) replay_main(path, &change, null, err, sizeof(err));
    }
    (void) fclose(f);
    (void) fclose(null);
    free(p);

    return 0;
}
