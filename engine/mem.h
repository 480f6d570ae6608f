/*
 * Memory that is sized at start.  mem_zero maps zeroed, lazily committed pages,
 * so that a table sized for the worst case costs what is used of it; after
 * mem_seal an allocation from a sealed thread asserts.
 */
#ifndef MEM_H
#define MEM_H

#include <stddef.h>

/* Zeroed, 64-byte aligned, freed with mem_free; NULL when out of memory. */
void *mem_zero(size_t n, size_t size);
void mem_free(void *p);

/* Bytes mapped by mem_zero and not freed. */
size_t mem_total(void);

/* From now on mem_zero asserts in this process. */
void mem_seal(void);

#endif
