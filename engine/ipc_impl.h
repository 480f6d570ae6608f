/*
 * What the attachments' own files share: opening and listening (ipc_open.c),
 * and the life of an attachment (ipc.c).  For those two only.
 */
#ifndef IPC_IMPL_H
#define IPC_IMPL_H

#include "ipc.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>

#define IPC_PAGE        4096u
#define IPC_PENDING_MAX 64 /* connections that have not said hello yet */
#define IPC_EVENTS      64 /* of one wait */

/* What an epoll event is about; the index is in the lower half. */
enum { IPC_ON_LISTEN = 1, IPC_ON_EXTRA, IPC_ON_PENDING, IPC_ON_ATT };

typedef struct {
    int fd; /* owned, -1: unused */
    uint64_t deadline_ms;
    uint64_t seq; /* order of arrival */
    struct ucred peer;
} ipc_pending_t;

typedef struct {
    /* written at attach, then constant but for dead */
    ipc_att_t pub;
    int fd;       /* owned, -1: unused */
    uint8_t *map; /* owned */

    /* text_in's */
    _Alignas(LLM_RING_LINE) llm_ring_t submit;
    uint32_t refs; /* requests, and 1 while it lives */
    uint32_t paused;

    /* text_out's */
    _Alignas(LLM_RING_LINE) llm_ring_t event;
    uint32_t dirty;         /* in the list of rings to wake */
    uint32_t full;          /* had no room at last try */
    uint64_t full_peer;     /* the worker's index then */
    uint64_t full_since_ms; /* since when it has not moved */

    /* text_out > text_in, atomic */
    uint32_t stuck;
} ipc_slot_t;

struct ipc_s {
    ipc_cfg_t cfg;
    llm_msg_welcome_t layout; /* of every segment; epoch and version not set */
    llm_state_t *state;       /* owned mapping */
    int state_fd, lock_fd, listen_fd, epoll_fd; /* owned */
    dev_t dev; /* of the socket we bound, to know it again */
    ino_t ino;
    uint32_t epoch;     /* the last one given */
    uint32_t stuck;     /* atomic: some attachment's stuck is set */
    uint64_t accepted;  /* connections so far */
    uint64_t accept_ms; /* 0, or when to listen again */
    uint64_t now_ms;    /* of this turn */
    uint64_t log_ms;    /* the second whose lines log_n counts */
    uint32_t log_n;
    int events_n;
    struct epoll_event events[IPC_EVENTS];
    ipc_pending_t pending[IPC_PENDING_MAX];
    uint32_t dirty_n;
    uint32_t *dirty;   /* [workers_max] attachment indices, text_out's */
    ipc_slot_t *slots; /* [workers_max] */
};

/* Watches a descriptor, or changes what it stands for. 0, or -1 with errno. */
int ipc_epoll(ipc_t *ipc, int op, int fd, uint32_t kind, uint32_t i);

/*
 * A memfd of size bytes, mapped writable at *map, that can then neither
 * shrink nor grow; seals come on top.  -1 with errno.
 */
int ipc_memfd(const char *name, uint64_t size, unsigned seals, void **map);

/* Does another socket have the path? */
int ipc_replaced(const ipc_t *ipc);

/* Stops listening, and lets a successor have the path. */
void ipc_unlisten(ipc_t *ipc);

#endif
