/*
 * The engine's end of the attachments: one listening socket, one segment and
 * one socket per nginx worker, one state page for all.
 *
 * TWO THREADS use it.  text_in accepts, reads SUBMIT rings, notices death and
 * frees; text_out writes EVENT rings and rings the workers' doorbells.  What
 * each of them touches of an attachment is on cache lines of its own.
 *
 * INVARIANT.  An attachment's mapping and its socket live while it has
 * references, and each request holds one from ipc_ref() by text_in until
 * text_in has handled its FREE message.  So text_out may use attachment
 * r->att for as long as it owns request r, dead or not, with no lock.  It
 * rings before it lets go: ipc_event_flush() comes before the FREE messages
 * of the same turn, and text_out never touches r->att after that FREE.
 */
#ifndef IPC_H
#define IPC_H

#include "llm_ring.h"
#include "llm_wire.h"

#include <stddef.h>
#include <stdint.h>

#define IPC_HELLO_MS 2000  /* a connection that says nothing is closed */
#define IPC_STUCK_MS 60000 /* an EVENT ring full and unread for so long */

typedef struct ipc_s ipc_t;

typedef struct {
    const char *path;  /* of the listening socket, borrowed until close */
    const char *group; /* "": the process's own */
    uint32_t slots;    /* of one worker, 1 .. LLM_SLOTS_MAX */
    uint32_t workers_max;
    uint32_t submit_size; /* ring bytes, powers of two */
    uint32_t event_size;
    uint32_t credit_max; /* bytes */
    uint32_t live_rows;  /* of the list of requests, 0: no list */
    int takeover;        /* succeed who listens there */
} ipc_cfg_t;


/* --- main --------------------------------------------------------------- */

/*
 * Takes PATH.lock and makes the state page, all zero but for magic, version,
 * size and pid.  Nobody can connect yet.  NULL with one sentence in err: a
 * live engine holds the path, path too long, wrong permissions, sizes that do
 * not fit together.  With takeover a live engine keeps the lock until
 * ipc_listen, which puts our socket in the place of its, tells it to drain, and
 * takes the lock then.
 */
ipc_t *ipc_open(const ipc_cfg_t *cfg, char *err, size_t errlen);

/* Binds and listens; the state page is complete. 0, or -1 with err. */
int ipc_listen(ipc_t *ipc, char *err, size_t errlen);

/* Any time before text_in and text_out start or after they ended. */
void ipc_close(ipc_t *ipc);

/* The state page, writable, until ipc_close. */
llm_state_t *ipc_state(ipc_t *ipc);

/* Bytes of it, with the list of requests behind it (llm_live.h). */
uint64_t ipc_state_size(const ipc_t *ipc);

/* Bytes of shared memory that one attachment takes. */
uint64_t ipc_segment_bytes(const ipc_cfg_t *cfg);


/* --- text_in ------------------------------------------------------------ */

/* What text_in needs to know of a live attachment. */
typedef struct {
    uint32_t epoch; /* 0: no attachment here */
    uint32_t slots;
    uint32_t pid;                 /* as the kernel said */
    uint32_t dead;                /* atomic: nonzero after EOF or detach */
    const llm_slot_line_t *lines; /* [slots], written by the worker */
    llm_seg_head_t *seg;
} ipc_att_t;

/* Bits that ipc_handle returns. */
enum {
    IPC_RANG = 1 << 0, /* a worker rang: records, slot lines or ring room */
    IPC_DIED = 1 << 1, /* an attachment died since the last call */
    IPC_EXTRA = 1 << 2 /* the fd given to ipc_watch is readable */
};

/* Adds a foreign fd (text_in's bell) to what ipc_wait waits for. 0 or -1. */
int ipc_watch(ipc_t *ipc, int fd);

/* Sleeps until something happens, at most timeout_ms. */
void ipc_wait(ipc_t *ipc, int timeout_ms);

/*
 * Handles what ipc_wait found: accepts, reads hellos, clears doorbells,
 * notices death, closes silent connections and detaches whom text_out
 * reported stuck.  now_ms is the monotonic time behind the wait.
 */
unsigned ipc_handle(ipc_t *ipc, uint64_t now_ms);

/* Milliseconds from now to the next deadline, at most max_ms. */
int ipc_timeout(const ipc_t *ipc, uint64_t now_ms, int max_ms);

/* How many attachment indices there are: att < ipc_atts(). */
uint32_t ipc_atts(const ipc_t *ipc);

/* Attachment att, NULL if there is none or if it is dead. */
ipc_att_t *ipc_att(ipc_t *ipc, uint32_t att);

/* Takes and gives back a reference; the last one frees a dead attachment. */
void ipc_ref(ipc_t *ipc, uint32_t att);
void ipc_unref(ipc_t *ipc, uint32_t att);

/*
 * Ends a live attachment: dead is set, the worker sees EOF, why is logged.
 * Its segment stays until the last reference is given back.
 */
void ipc_detach(ipc_t *ipc, uint32_t att, const char *why);

/* llm_ring_peek and llm_ring_advance on the SUBMIT ring of a live one. */
int64_t ipc_submit_peek(ipc_t *ipc, uint32_t att, void *buf, uint32_t cap);
void ipc_submit_advance(ipc_t *ipc, uint32_t att);

/*
 * A paused ring has a record that cannot be taken yet; ipc_may_sleep does
 * not look at it.
 */
void ipc_submit_pause(ipc_t *ipc, uint32_t att, int pause);

/*
 * Says to every worker that text_in is about to sleep.  Returns 1 if it may,
 * 0 if a SUBMIT ring has something.
 */
int ipc_may_sleep(ipc_t *ipc);

/* Asks the worker to ring at its next change of a slot line. */
void ipc_lines_arm(ipc_t *ipc, uint32_t att);

/*
 * Stops listening: the path is unlinked if it is still ours, the lock given
 * up so that a successor can start, and each worker rung so that it looks at
 * the state page.
 */
void ipc_drain(ipc_t *ipc);

/* Has a successor got the path?  Then what workers submit is still taken. */
int ipc_succeeded(const ipc_t *ipc);

/* Any thread: no more of that; from now on it is as without a successor. */
void ipc_refuse_all(ipc_t *ipc);


/* --- text_out ----------------------------------------------------------- */

/*
 * Room for one EVENT record of len bytes (its llm_ring_hdr_t included) in the
 * ring of attachment att, which a request of the caller's refers to.  The
 * caller writes the whole record, hdr.len = len and the type included, never
 * reads it back, and commits.  terminal is nonzero for DONE and ERROR only,
 * whose len is <= LLM_TERMINAL_MAX: the room that is kept for them is theirs.
 *
 * NULL: there is no room now, or the attachment is dead (*r->dead tells).
 * Not terminal: keep the text, count it as no credit, try again after the
 * worker rang (text_in rings out_bell for each doorbell) and at least every
 * second; now_ms (monotonic) starts the clock that detaches a worker whose
 * full ring is not read for IPC_STUCK_MS.  Terminal: the worker used a slot
 * again before it had read the slot's end, so it is being detached and the
 * event may be dropped.
 */
void *ipc_event_reserve(
    ipc_t *ipc, uint32_t att, uint32_t len, int terminal, uint64_t now_ms);

/* Publishes what was reserved. */
void ipc_event_commit(ipc_t *ipc, uint32_t att);

/*
 * Once per turn, before the FREE messages of that turn: rings the doorbell of
 * each worker that got events since the last flush and sleeps.
 */
void ipc_event_flush(ipc_t *ipc);

#endif
