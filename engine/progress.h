/*
 * How far loading has come, on one line of a terminal that is written over and
 * over and wiped at the end.  On anything but a terminal it is silent.
 */
#ifndef PROGRESS_H
#define PROGRESS_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t total, done;       /* bytes */
    uint64_t start_us, next_us; /* when it began, and is written again */
    int fd;                     /* the terminal, -1: none */
    int shown;
} progress_t;

/* fd is written to if it is a terminal. */
void progress_open(progress_t *p, uint64_t total, uint64_t now_us, int fd);

/* bytes more have been loaded. */
void progress_add(progress_t *p, uint64_t bytes, uint64_t now_us);

/* Wipes the line, if one was written. */
void progress_close(progress_t *p);

/* "loading 37 % 5.1/13.8 GB 2.1 GB/s" in buf. */
void progress_text(
    const progress_t *p, uint64_t now_us, char *buf, size_t size);

#endif
