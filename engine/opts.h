/*
 * The option list: a row gives the field, the command line's --name, the line
 * in engine.conf, default, limits and help text.
 *
 *   X(name, type, default, min, max, help)
 *
 * type is str, int, size (512k, 4m, 2g), ms (100ms, 5s, 2m) or a list of
 * words that enums below name.  min and max bound numbers.
 */
#ifndef OPTS_H
#define OPTS_H

#include <stddef.h>
#include <stdint.h>

#define OPTS_LIST(X)                                                           \
    X(model, str, "", 0, 0, "GGUF file, or directory with safetensors")        \
    X(model_name, str, "", 0, 0, "public name; default: the file's")           \
    X(chat_template, str, "", 0, 0,                                            \
        "file with a chat template; default: the model's own")                 \
    X(reasoning, str, "auto", 0, 0,                                            \
        "marks of thought: auto, off, think, harmony, granite, ...")           \
    X(tool_calls, str, "auto", 0, 0,                                           \
        "form of tool calls: auto, off, hermes, llama, mistral, ...")          \
    X(listen, str, "/run/llm/engine.sock", 0, 0,                               \
        "unix socket that nginx workers connect to")                           \
    X(socket_group, str, "", 0, 0,                                             \
        "group that may connect; default: the engine's own")                   \
    X(takeover, int, "0", 0, 1,                                                \
        "1: succeed the engine that listens on that path")                     \
    X(device, str, "cpu", 0, 0, "cpu, cuda or null (canned tokens, no model)") \
    X(cuda_library, str, "", 0, 0,                                             \
        "CUDA's back end; default: llm_cuda.so beside the engine")             \
    X(cuda_graphs, str, "on", 0, 0,                                            \
        "on: a GPU's steps are recorded once and replayed; or off")            \
    X(cuda_gemm, str, "own", 0, 0,                                             \
        "products of many rows by kernels of our own, or a library's")         \
    X(cuda_overlap, str, "off", 0, 0,                                          \
        "on: kernels of a GPU begin while the one before ends; or off")        \
    X(cpu_isa, str, "auto", 0, 0,                                              \
        "auto, ref, avx2, avxvnni, avx512, avx512vnni or avx512bf16")          \
    X(threads, int, "0", 0, 256, "CPU threads; 0: one per core, or of cpus")   \
    X(cpus, str, "", 0, 0,                                                     \
        "CPUs that they stay on, such as 0-3,8; default: any")                 \
    X(text_threads, int, "2", 1, 64, "threads that tokenise prompts")          \
    X(grammar_threads, int, "2", 1, 64,                                        \
        "threads that compile grammars, behind all others")                    \
    X(grammar_timeout, ms, "1s", 10, 60000,                                    \
        "how long the compilation of a grammar may take")                      \
    X(grammar_cache, size, "256m", 0, 1ll << 40,                               \
        "memory for compiled grammars that nobody uses")                       \
    X(grammar_jump, str, "on", 0, 0,                                           \
        "on or off: tokens that a grammar forces are not sampled")             \
    X(context, int, "0", 0, 1 << 20,                                           \
        "longest sequence, tokens; 0: what the model was trained for")         \
    X(kv_type, str, "f16", 0, 0, "keys and values as f32, f16, bf16 or q8_0")  \
    X(kv_memory, size, "0", 0, 1ll << 46,                                      \
        "memory for KV blocks; 0: eight contexts' worth")                      \
    X(kv_host_memory, size, "0", 0, 1ll << 46,                                 \
        "host memory for cached KV blocks that kv_memory gives up")            \
    X(kv_host_copy, str, "all", 0, 0,                                          \
        "what is copied there: all, or again (what was used twice)")           \
    X(prefix_cache, str, "on", 0, 0,                                           \
        "on or off: keep what was computed for who begins alike")              \
    X(prefix_share, str, "tenant", 0, 0,                                       \
        "with whom: tenant (its own requests) or all")                         \
    X(prefix_floor, int, "50", 0, 100,                                         \
        "percent of a tenant's share of the cache that others must leave")     \
    X(prefix_idle, ms, "10m", 0, 31536000000,                                  \
        "how long a tenant that sends nothing keeps that; 0: for ever")        \
    X(prefix_pin, str, "", 0, 0,                                               \
        "file or directory: what prompts begin with, kept for all tenants")    \
    X(block_tokens, int, "16", 4, 256, "tokens in a KV block")                 \
    X(batch_tokens, int, "512", 1, 65536, "tokens computed in one step")       \
    X(batch_tile, int, "16", 1, 4096,                                          \
        "steps with prompts have a multiple of that many tokens")              \
    X(step_target, ms, "250ms", 0, 60000,                                      \
        "wanted time of a step while streams run; 0: batch_tokens rules")      \
    X(policy, str, "fair", 0, 0,                                               \
        "who goes first: fair (by tenant), prefix (by match) or fcfs")         \
    X(prefix_pass, ms, "5s", 0, 600000,                                        \
        "who came so much later may go first for its match; 0: nobody")        \
    X(class_floor, int, "5", 0, 100,                                           \
        "percent for lower classes while a higher one waits; 0: nothing")      \
    X(planning_depth, int, "0", 0, 1,                                          \
        "1: plan a step while the one before it runs")                         \
    X(batch_rows, int, "64", 1, 4096, "sequences computed in one step")        \
    X(requests, int, "1024", 1, 65536, "requests held, waiting ones too")      \
    X(slots, int, "1024", 1, 4096, "requests of one nginx worker")             \
    X(workers_max, int, "64", 1, 1024, "nginx workers attached at once")       \
    X(submit_ring, size, "4m", 4096, 1 << 30,                                  \
        "SUBMIT ring of a worker; a request is at most half of it")            \
    X(event_ring, size, "1m", 4096, 1 << 30, "EVENT ring of a worker")         \
    X(credit_max, size, "256k", 1024, 1 << 24,                                 \
        "bytes that may wait for one slow client")                             \
    X(step_min, ms, "0", 0, 60000, "shortest time of a step: paces tests")     \
    X(drain_timeout, ms, "30s", 0, 86400000,                                   \
        "how long running requests may take after SIGTERM")                    \
    X(tensor_parallel, int, "1", 1, 64, "ranks that compute the model")        \
    X(rank, int, "-1", -1, 63, "of this process; -1: as mpirun or srun say")   \
    X(tensor_parallel_address, str, "", 0, 0,                                  \
        "HOST:PORT of rank 0, where each rank is a process")                   \
    X(tensor_parallel_secret, str, "", 0, 0,                                   \
        "file with 32 hexadecimal digits that ranks share")                    \
    X(tensor_parallel_wait, ms, "10m", 100, 86400000,                          \
        "how long ranks wait for each other at start")                         \
    X(tensor_parallel_silence, ms, "10s", 100, 3600000,                        \
        "a rank that is silent so long in a step is lost")                     \
    X(record, str, "", 0, 0,                                                   \
        "file for what is scheduled, from start to end; no text is in it")     \
    X(record_limit, size, "1g", 1024, 1ll << 46,                               \
        "where a recording ends; the engine goes on")                          \
    X(replay, str, "", 0, 0,                                                   \
        "says whether such a file replays to equal plans, and exits")          \
    X(log_level, str, "info", 0, 0, "error, warn, info or debug")

typedef struct {
#define OPT_TYPE_str                       const char *
#define OPT_TYPE_int                       int64_t
#define OPT_TYPE_size                      int64_t
#define OPT_TYPE_ms                        int64_t
#define X(name, type, def, min, max, help) OPT_TYPE_##type name;
    OPTS_LIST(X)
#undef X
    uint64_t given; /* bit i: row i was set, to whatever */
    int inspect;    /* --inspect: print, exit */
    int help;       /* --help */
    int version;    /* --version */
} opts_t;

/* Sets every option to its default. */
void opts_init(opts_t *o);

/*
 * Sets one option from text.  0, or -1 with one sentence in err.  Strings are
 * copied and live until opts_free.
 */
int opts_set(
    opts_t *o, const char *name, const char *value, char *err, size_t errlen);

/* Was that option, whose name is one, set? */
int opts_given(const opts_t *o, const char *name);

/*
 * The target for a step's time that rules, ms; 0: none.  One that was not asked
 * for is for devices that compute.
 */
int64_t opts_step_target(const opts_t *o);

/* Reads "name value" lines; '#' starts a comment. 0, or -1 with err. */
int opts_file(opts_t *o, const char *path, char *err, size_t errlen);

/*
 * The command line: --name value, --name=value, -c file, --inspect [model],
 * --check, --help, --version.  0, or -1 with err.
 */
int opts_args(opts_t *o, int argc, char **argv, char *err, size_t errlen);

/* Prints the option table to stdout. */
void opts_help(void);

void opts_free(opts_t *o);

#endif
