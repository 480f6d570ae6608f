/*
 * Memory that children of a test share, as workers do a zone.  Behind
 * cmocka.h.
 */
#ifndef SHARED_H
#define SHARED_H

#include <sys/mman.h>

static void *
memory(size_t size)
{
    void *p = mmap(
        NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_ptr_not_equal(p, MAP_FAILED);
    return p;
}

#endif
