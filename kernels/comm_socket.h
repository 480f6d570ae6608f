/*
 * A group whose ranks are processes, of one machine or of several.  See
 * comm_socket.c.
 */
#ifndef COMM_SOCKET_H
#define COMM_SOCKET_H

#include "comm.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    uint32_t rank, ranks; /* ranks at least 2 */
    const int *fds;       /* connected stream sockets with nothing in them: of
                           * rank 0 [ranks], fds[r] to rank r and fds[0] not
                           * looked at; of any other [1], to rank 0 */
    uint32_t wait_ms;     /* who is waited for may be silent so long */
} comm_socket_t;

/*
 * This process's rank, to be closed; it owns the sockets from then on.  0, or
 * -1 with one sentence in err: no memory.
 *
 * comm_cast waits in a rank that is not 0 for as long as it takes, so that
 * others may have nothing to say for hours; a connection that is gone ends
 * that within seconds.
 */
int comm_socket_open(
    const comm_socket_t *cfg, comm_t **c, char *err, size_t errlen);

/*
 * Are the others still there?  For a rank that has nothing to do, between two
 * calls and in the thread that makes them.  0, or -1: the group has ended.
 */
int comm_socket_look(comm_t *c);

/* Another wait_ms, for c that comm_socket_open made; its rank's own thread. */
void comm_socket_wait(comm_t *c, uint32_t wait_ms);

#ifdef __cplusplus
}
#endif

#endif
