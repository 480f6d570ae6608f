/*
 * A bell wakes one sleeping thread of this process: an eventfd that is written
 * only when the thread has said that it sleeps, so ringing costs one exchange
 * while it is awake.  The order is llm_ring.h's rule 3.
 */
#ifndef BELL_H
#define BELL_H

#include <stdint.h>

typedef struct {
    uint32_t sleeps; /* exchanged by sleeper and ringers */
    int fd;          /* eventfd, owned; for the sleeper's epoll if it has one */
} bell_t;

/* 0, or -1 with errno. */
int bell_open(bell_t *b);
void bell_close(bell_t *b);

/* Any thread, after it has published what the sleeper is to find. */
void bell_ring(bell_t *b);

/*
 * The sleeper says that it is about to sleep, and must look once more at all
 * that it waits for; then either bell_wait(), or bell_stay() if it found
 * something.
 */
void bell_arm(bell_t *b);
void bell_stay(bell_t *b);

/* Sleeps until rung, at most timeout_ms. */
void bell_wait(bell_t *b, int timeout_ms);

#endif
