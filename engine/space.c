/*
 * Namespaces as keyed hashes of names: SipHash-2-4.
 *
 * DESIGN.  A namespace is 64 bits in each node of the prefix cache, where a
 * name would be too long.  Names come from clients (cache_salt), who would
 * have another tenant's prompts timed for them if they could find a name with
 * that tenant's number; so the hash has a key, drawn at start, and is one made
 * for that.  Each part is led by its length: ("a", "bc") is not ("ab", "c").
 *
 * Pure; any thread.
 */
#include "space.h"

#include <assert.h>
#include <string.h>

typedef struct {
    uint64_t v[4];
    uint8_t rest[8]; /* bytes that do not fill a word yet */
    size_t len;      /* of all */
} sip_t;


static uint64_t
turn(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}


static void
rounds(uint64_t v[4], int n)
{
    while (n-- > 0) {
        v[0] += v[1];
        v[1] = turn(v[1], 13) ^ v[0];
        v[0] = turn(v[0], 32);
        v[2] += v[3];
        v[3] = turn(v[3], 16) ^ v[2];
        v[0] += v[3];
        v[3] = turn(v[3], 21) ^ v[0];
        v[2] += v[1];
        v[1] = turn(v[1], 17) ^ v[2];
        v[2] = turn(v[2], 32);
    }
}


static void
word(sip_t *s, const uint8_t *p)
{
    uint64_t w;

    memcpy(&w, p, sizeof(w)); /* little-endian machines only, as the wire */
    s->v[3] ^= w;
    rounds(s->v, 2);
    s->v[0] ^= w;
}


static void
feed(sip_t *s, const uint8_t *p, size_t len)
{
    size_t i;

    assert(p != NULL || len == 0);

    for (i = 0; i < len; i++) {
        s->rest[s->len++ % 8] = p[i];
        if (s->len % 8 == 0) {
            word(s, s->rest);
        }
    }
}


uint64_t
space_of(const uint64_t key[2], const space_part_t *parts, size_t n)
{
    sip_t s;
    uint64_t len;
    size_t i;

    memset(&s, 0, sizeof(s));
    s.v[0] = key[0] ^ 0x736f6d6570736575ull;
    s.v[1] = key[1] ^ 0x646f72616e646f6dull;
    s.v[2] = key[0] ^ 0x6c7967656e657261ull;
    s.v[3] = key[1] ^ 0x7465646279746573ull;

    for (i = 0; i < n; i++) {
        len = parts[i].len;
        if (n > 1) {
            feed(&s, (const uint8_t *) &len, sizeof(len));
        }
        feed(&s, parts[i].p, parts[i].len);
    }

    memset(s.rest + s.len % 8, 0, 8 - s.len % 8);
    s.rest[7] = (uint8_t) s.len;
    word(&s, s.rest);
    s.v[2] ^= 0xff;
    rounds(s.v, 4);

    len = s.v[0] ^ s.v[1] ^ s.v[2] ^ s.v[3];

    return len == SPACE_EVERYONE ? 0 : len;
}
