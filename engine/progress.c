/*
 * Loading, as a line on a terminal: see progress.h.
 *
 * DESIGN.  The time is an argument, so that the text can be tested.  A line
 * goes out at most ten times a second and not in the first tenth: what loads
 * at once says nothing.  It is one write, without the log's time and process:
 * the next one takes its place, and the log never has it.
 *
 * The caller's struct is all there is.  One thread.
 */
#include "progress.h"

#include <assert.h>
#include <stdio.h>
#include <unistd.h>

#define EVERY_US 100000


void
progress_open(progress_t *p, uint64_t total, uint64_t now_us, int fd)
{
    p->total = total;
    p->done = 0;
    p->start_us = now_us;
    p->next_us = now_us + EVERY_US;
    p->fd = isatty(fd) ? fd : -1;
    p->shown = 0;
}


/* The unit that the total is told in: its bytes. */
static double
unit_of(uint64_t total, const char **name)
{
    *name = total >= 1000000000 ? "GB" : "MB";

    return total >= 1000000000 ? 1e9 : 1e6;
}


void
progress_text(const progress_t *p, uint64_t now_us, char *buf, size_t size)
{
    const char *name;
    double unit = unit_of(p->total, &name), rate = 0;

    assert(now_us >= p->start_us && size > 0);
    if (now_us > p->start_us) {
        rate = (double) p->done / unit
               / ((double) (now_us - p->start_us) / 1000000);
    }

    snprintf(buf, size, "loading %u %% %.1f/%.1f %s %.1f %s/s",
        p->total == 0
            ? 100
            : (unsigned) (100.0 * (double) p->done / (double) p->total),
        (double) p->done / unit, (double) p->total / unit, name, rate, name);
}


static void
put(int fd, const char *s, int n)
{
    /* a terminal that is gone is no reason to stop */
    if (n > 0 && write(fd, s, (size_t) n) < 0) {
        return;
    }
}


void
progress_add(progress_t *p, uint64_t bytes, uint64_t now_us)
{
    char text[128], line[160];

    assert(bytes <= UINT64_MAX - p->done);
    p->done += bytes;
    if (p->fd == -1 || now_us < p->next_us) {
        return;
    }

    progress_text(p, now_us, text, sizeof(text));
    put(p->fd, line, snprintf(line, sizeof(line), "\r%s\033[K", text));
    p->next_us = now_us + EVERY_US;
    p->shown = 1;
}


void
progress_close(progress_t *p)
{
    assert(p->fd != -1 || !p->shown);
    if (p->shown) {
        put(p->fd, "\r\033[K", 4);
        p->shown = 0;
    }
}
