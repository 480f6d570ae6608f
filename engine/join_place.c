/*
 * Where this process is among the ranks, and the secret that they share: what
 * it finds in its surroundings.
 *
 * DESIGN.  Whoever starts many processes at once tells each its number in the
 * environment, by names of his own.  mpirun comes before Slurm: under a batch
 * job it starts ranks with srun's help, and then both names are there, Slurm's
 * counting the helpers.
 *
 * The main thread, at start.
 */
#include "join.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DIGITS 32 /* of the secret: 128 bits */


/* A number below limit; -1 if text is none. */
static long
number(const char *text, long limit)
{
    char *end;
    long v;

    errno = 0;
    v = strtol(text, &end, 10);

    return errno != 0 || end == text || *end != '\0' || v < 0 || v >= limit ? -1
                                                                            : v;
}


int
join_place(join_place_t *p, char *err, size_t errlen)
{
    static const struct {
        const char *rank, *ranks, *from;
    } rows[] = {{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "mpirun"},
        {"PMI_RANK", "PMI_SIZE", "mpirun"},
        {"SLURM_PROCID", "SLURM_NTASKS", "srun"}};
    const char *rank, *ranks;
    size_t i;
    long r, n;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        rank = getenv(rows[i].rank);
        ranks = getenv(rows[i].ranks);
        if (rank == NULL || ranks == NULL) {
            continue;
        }
        r = number(rank, 1 << 20);
        n = number(ranks, 1 << 20);
        if (r < 0 || n < 1 || r >= n) {
            snprintf(err, errlen, "%s %.40s of %s %.40s is no place",
                rows[i].rank, rank, rows[i].ranks, ranks);
            return -1;
        }
        p->rank = (uint32_t) r;
        p->ranks = (uint32_t) n;
        p->from = rows[i].from;
        return 1;
    }

    return 0;
}


/* 0, or -1: these are not DIGITS digits, and white space at most. */
static int
read_key(uint64_t key[2], const char *s)
{
    static const char hex[] = "0123456789abcdef";
    const char *at;
    uint32_t i;

    key[0] = key[1] = 0;
    for (i = 0; i < DIGITS; i++, s++) {
        at = *s == '\0'
                 ? NULL
                 : strchr(hex, *s >= 'A' && *s <= 'F' ? *s - 'A' + 'a' : *s);
        if (at == NULL) {
            return -1;
        }
        key[i / 16] = key[i / 16] << 4 | (uint64_t) (at - hex);
    }

    return s[strspn(s, " \t\r\n")] == '\0' ? 0 : -1;
}


int
join_key(uint64_t key[2], const char *path, char *err, size_t errlen)
{
    const char *env = getenv(JOIN_SECRET_ENV);
    char text[DIGITS + 16];
    ssize_t n;
    int fd;

    assert(path != NULL && errlen > 0);

    if (path[0] == '\0') {
        if (env != NULL && read_key(key, env) == 0) {
            return 0;
        }
        snprintf(err, errlen,
            "ranks in several processes need a secret: set "
            "tensor_parallel_secret to a file, or " JOIN_SECRET_ENV
            ", with %d hexadecimal digits%s",
            DIGITS, env == NULL ? "" : "; found something else");
        return -1;
    }

    fd = open(path, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n < 0) {
        snprintf(err, errlen, "tensor_parallel_secret %.200s: %s", path,
            strerror(errno));
    }
    if (fd >= 0) {
        (void) close(fd);
    }
    if (n < 0) {
        return -1;
    }

    text[n] = '\0';
    if (read_key(key, text) != 0) {
        snprintf(err, errlen,
            "tensor_parallel_secret %.200s: expected %d hexadecimal digits, "
            "found something else",
            path, DIGITS);
        return -1;
    }

    return 0;
}
