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

/*
 * The same for a table that is read all over and will be used as a whole: huge
 * pages, where the system lends them, so that a look at it does not cost one
 * at the page tables too.  What is used of it is committed 2 MB at a time.
 */
void *mem_zero_huge(size_t n, size_t size);

/*
 * The same for the first bytes of a table from mem_zero, which are used most,
 * unless that are more than MEM_HUGE_MAX: then what is committed without need
 * would be worth more than the looks.
 */
#define MEM_HUGE_MAX (64u << 20)
void mem_huge(void *p, size_t bytes);

/* Bytes mapped by mem_zero and not freed. */
size_t mem_total(void);

/* From now on mem_zero asserts in this process. */
void mem_seal(void);

#endif
