/*
 * Damage to a file's bytes, from a seed: what a broken disk, a download that
 * was cut short or somebody who means it makes of a model.
 */
#ifndef DAMAGE_H
#define DAMAGE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t
damage_rnd(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

/* A generator for each seed, however close they are. */
static inline uint64_t
damage_seed(uint64_t seed)
{
    return seed * 2654435761u + 88172645463325252ull;
}

/* One of: a bit, a byte, or a number of eight bytes. */
static inline void
damage_one(uint8_t *p, size_t len, size_t at, uint64_t *seed)
{
    static const uint64_t absurd[] = {0, 1, UINT64_MAX, UINT64_MAX / 2,
        UINT64_MAX / 8 + 1, 1ull << 32, 1ull << 31, 65536};

    switch (damage_rnd(seed) % 4) {

    case 0:
    case 1:
        p[at] ^= (uint8_t) (1u << damage_rnd(seed) % 8);
        break;

    case 2:
        p[at] = (uint8_t) damage_rnd(seed);
        break;

    default:
        if (len >= 8 && at <= len - 8) {
            memcpy(p + at, &absurd[damage_rnd(seed) % 8], 8);
        }
    }
}

/*
 * One to four changes to p, and perhaps it is cut short; returns its new
 * length.  Three of four hit the first head bytes (0 < head <= len), where
 * each bit means something.
 */
static inline size_t
damage(uint8_t *p, size_t len, size_t head, uint64_t *seed)
{
    uint64_t n = 1 + damage_rnd(seed) % 4;
    size_t room;

    if (damage_rnd(seed) % 4 == 0) {
        room = damage_rnd(seed) % 4 == 0 ? len : head;
        len = damage_rnd(seed) % (room + 1);
    }

    for (; n > 0 && len > 0; n--) {
        room = damage_rnd(seed) % 4 == 0 || len < head ? len : head;
        damage_one(p, len, damage_rnd(seed) % room, seed);
    }

    return len;
}

#endif
