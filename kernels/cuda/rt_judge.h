/*
 * What is wrong with a machine's GPU, or has gone wrong with it, in words.
 */
#ifndef RT_JUDGE_H
#define RT_JUDGE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RT_MAJOR_MIN 8 /* compute capability 8.0: asynchronous copies, BF16 */

/* What the runtime has found, as far as it came. */
typedef struct {
    int driver, runtime; /* CUDA's numbers: 13010 is 13.1; driver 0: none */
    int devices;         /* that can be seen */
    int major, minor;    /* compute capability of the first, */
    char name[256];      /* and its name */
    const char *error;   /* the runtime's words, or NULL */
} rt_found_t;

/*
 * 0 if the first device will do, or -1 with one sentence.  A driver may be of
 * an older minor version than the runtime, not of an older major one.
 */
int rt_judge(const rt_found_t *f, char *err, size_t errlen);

/* A call has failed after the start: one line to stderr, and exit 1. */
#ifdef __cplusplus
[[noreturn]]
#else
_Noreturn
#endif
void
rt_die(const char *what, const char *why);

#ifdef __cplusplus
}
#endif

#endif
