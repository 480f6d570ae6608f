
/*
 * A hash of text from the configuration or of no consequence: FNV-1a, stirred
 * at its end (the finalizer of MurmurHash3).  Not for what an attacker chooses.
 */


#ifndef LLM_HASH_H_INCLUDED_
#define LLM_HASH_H_INCLUDED_


#include <stddef.h>
#include <stdint.h>


#define LLM_HASH_BASIS  14695981039346656037ull
#define LLM_HASH_PRIME  1099511628211ull


static inline uint64_t
llm_hash(uint64_t h, const void *data, size_t len)
{
    size_t          i;
    const uint8_t  *p;

    p = data;

    for (i = 0; i < len; i++) {
        h = (h ^ p[i]) * LLM_HASH_PRIME;
    }

    h = (h ^ (h >> 33)) * 0xff51afd7ed558ccdull;
    h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53ull;

    return h ^ (h >> 33);
}


#endif /* LLM_HASH_H_INCLUDED_ */
