/*
 * Doubly linked lists in an array: members are named by index, and kept sorted
 * by a key.  A member is in at most one list per array of links.
 */
#ifndef LIST_H
#define LIST_H

#include <assert.h>
#include <stdint.h>

#define LIST_NONE UINT32_MAX

/* A member of one sorted list; the list ascends by key. */
typedef struct {
    uint64_t key; /* set before it is inserted */
    uint32_t prev, next;
} link_t;

typedef struct {
    uint32_t head, tail;
} list_t;


static inline void
list_init(list_t *list)
{
    list->head = LIST_NONE;
    list->tail = LIST_NONE;
}


/* At its tail, where keys say nothing. */
static inline void
list_append(list_t *list, link_t *links, uint32_t id)
{
    uint32_t at = list->tail;

    assert(at != id);

    links[id].prev = at;
    links[id].next = LIST_NONE;
    list->tail = id;
    if (at == LIST_NONE) {
        list->head = id;
    } else {
        links[at].next = id;
    }
}


/* Between two that are next to each other; LIST_NONE: at that end. */
static inline void
list_between(
    list_t *list, link_t *links, uint32_t id, uint32_t prev, uint32_t next)
{
    assert(prev != id && next != id);

    links[id].prev = prev;
    links[id].next = next;

    if (prev == LIST_NONE) {
        list->head = id;
    } else {
        links[prev].next = id;
    }
    if (next == LIST_NONE) {
        list->tail = id;
    } else {
        links[next].prev = id;
    }
}


/* Most insertions are of the newest: they look at the tail only. */
static inline void
list_insert(list_t *list, link_t *links, uint32_t id)
{
    uint32_t at = list->tail;

    while (at != LIST_NONE && links[at].key > links[id].key) {
        at = links[at].prev;
    }

    list_between(
        list, links, id, at, at == LIST_NONE ? list->head : links[at].next);
}


/* Somewhere behind member `at`, whose key is no higher. */
static inline void
list_insert_after(list_t *list, link_t *links, uint32_t id, uint32_t at)
{
    uint32_t next = links[at].next;

    assert(links[at].key <= links[id].key);

    while (next != LIST_NONE && links[next].key <= links[id].key) {
        at = next;
        next = links[at].next;
    }

    list_between(list, links, id, at, next);
}


static inline void
list_remove(list_t *list, link_t *links, uint32_t id)
{
    uint32_t prev = links[id].prev, next = links[id].next;

    assert(prev == LIST_NONE ? list->head == id : links[prev].next == id);
    assert(next == LIST_NONE ? list->tail == id : links[next].prev == id);

    if (prev == LIST_NONE) {
        list->head = next;
    } else {
        links[prev].next = next;
    }
    if (next == LIST_NONE) {
        list->tail = prev;
    } else {
        links[next].prev = prev;
    }
}

#endif
