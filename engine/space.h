/*
 * The namespace of a request in the prefix cache: two that differ share no
 * block, however equal their tokens.  See space.c.
 */
#ifndef SPACE_H
#define SPACE_H

#include <stddef.h>
#include <stdint.h>

/* The namespace that all others begin with, which no request is in. */
#define SPACE_EVERYONE UINT64_MAX

/* Bytes that the namespace depends on; len 0: none. */
typedef struct {
    const uint8_t *p;
    size_t len;
} space_part_t;

/*
 * A number for parts, in that order; equal parts have the same one, and none
 * has SPACE_EVERYONE.  Without
 * the key nobody can make up parts that have the number of others.
 */
uint64_t space_of(const uint64_t key[2], const space_part_t *parts, size_t n);

#endif
