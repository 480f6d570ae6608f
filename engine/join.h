/*
 * How processes that compute one model together find each other: rank 0
 * listens, the others connect, each shows that it knows the secret, and what
 * they opened is compared.  See join.c.
 */
#ifndef JOIN_H
#define JOIN_H

#include <stddef.h>
#include <stdint.h>

#define JOIN_SECRET_ENV "LLM_RANKS_SECRET"

/*
 * What must be alike in all ranks: X(field, what it is called).  A number that
 * is left out on both sides is alike.
 */
#define JOIN_FACTS(X)                                                          \
    X(model, "model")                                                          \
    X(vocab, "vocabulary")                                                     \
    X(context, "context")                                                      \
    X(block_tokens, "block_tokens")                                            \
    X(blocks, "number of KV blocks (kv_memory)")                               \
    X(host_blocks, "number of KV blocks in host memory (kv_host_memory)")      \
    X(kv_type, "kv_type")                                                      \
    X(batch_tokens, "batch_tokens")                                            \
    X(batch_rows, "batch_rows")                                                \
    X(batch_outs, "number of outputs")                                         \
    X(step_version, "form of steps")

typedef struct {
#define X(name, what) uint64_t name;
    JOIN_FACTS(X)
#undef X
} join_facts_t;

typedef struct {
    const char *address; /* HOST:PORT, or [HOST]:PORT; rank 0's */
    uint32_t rank, ranks;
    uint64_t key[2]; /* of join_key() */
    uint64_t wait_ms;
    join_facts_t facts;
    int (*give_up)(void *arg); /* asked now and then; NULL: never */
    void *arg;
} join_cfg_t;

/* Where a process is among those that were started with it. */
typedef struct {
    uint32_t rank, ranks;
    const char *from; /* who said so, for sentences */
} join_place_t;

/*
 * What mpirun or srun say in the environment: 1, or 0 if none of them started
 * this process.  -1 with one sentence in err: it is no place that can be.
 */
int join_place(join_place_t *p, char *err, size_t errlen);

/*
 * The key: 32 hexadecimal digits, in the file at path or, with an empty path,
 * in the environment.  0, or -1 with one sentence in err.
 */
int join_key(uint64_t key[2], const char *path, char *err, size_t errlen);

/*
 * Waits until all ranks are connected.  Of rank 0 fds [ranks] are to ranks 1
 * and on; of another fds[0] is to rank 0.  The caller owns them.  0, or -1
 * with one sentence in err, and no connection is left.
 */
int join_all(const join_cfg_t *c, int *fds, char *err, size_t errlen);

#endif
