/*
 * Published traces as loads, and a generator with the same statistics where
 * the files are absent.
 *
 * The files lie in traces/ of the directory that LLM_DATA names; they are
 * input like any other, and a line that does not read is left out.
 */
#ifndef TRACE_H
#define TRACE_H

#include "load.h"

/* X(id, file, what it is) */
#define TRACES(X)                                                              \
    X(CONV, "azure-2023-conv.csv.gz", "Azure 2023, conversation")              \
    X(CODE, "azure-2023-code.csv.gz", "Azure 2023, code")                      \
    X(MOONCAKE, "mooncake-conversation.jsonl.gz", "Mooncake, conversation")    \
    X(SHAREGPT, "sharegpt-lengths.csv.gz", "ShareGPT lengths, 8k")             \
    X(SERVEGEN, "servegen/m-small-client-15", "ServeGen m-small, client 15")   \
    X(REASON, "servegen/deepseek-r1-client-26", "ServeGen R1, client 26")

/* clang-format off */
typedef enum {
#define X(id, file, doc) TRACE_##id,
    TRACES(X)
#undef X
    TRACE_N
} trace_t;
/* clang-format on */

const char *trace_name(trace_t t);

/*
 * Appends the trace's requests.  1: from its file; 0: generated from seed.
 * Times of arrival are the trace's, or of the same mean rate; ShareGPT has
 * none, and all of its requests come at 0.
 */
int trace_load(trace_t t, load_t *l, uint64_t seed);

/* The same, always generated. */
void trace_generate(trace_t t, load_t *l, uint64_t seed);

#endif
