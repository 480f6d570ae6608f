/*
 * Whose blocks a sequence may take: the prefix cache's shares, kept from who
 * runs.
 *
 * DESIGN.  Blocks are one pool, so every block that a running sequence gets is
 * one that the cache gives up.  kv_room() says how many a tenant can have
 * without others losing what is kept for them (radix_share.c).  A sequence
 * that needs more waits for its own tenant's: one of these gives way, the
 * newest first, and its blocks, cached now, are there for the rest.
 *
 *      room    [ free | own, idle | others', above their floors ]
 *
 *      admission   the tenant's sequences must find room as long as they run,
 *                  as far as can be guessed; it closes the door for others no
 *                  more than a full pool does
 *      growth      none beyond it; the tenant's newest one gives way
 *
 *      both        one whose tenant has no more than is kept for it gets on at
 *                  the cost of those who have more
 *
 * Something must always finish.  So the oldest request that has begun (the top)
 * may take what it needs when nobody else is to give way, and so may one that
 * runs alone, and the only sequence of a tenant that will never fit beside what
 * is kept: to wait would not help it.  A request of a higher class that gets in
 * by force takes from lower ones as ever: who runs there goes before who is
 * cached here.
 *
 * Who is alone in the pool finds room for all there is, and nothing here costs
 * more than a look while there is any.
 *
 * Pure, as all of the scheduler.
 */
#include "sched_int.h"

#include <assert.h>
#include <string.h>


/* Has the tenant of that sequence more cached than is kept for it? */
static int
over(const sched_t *s, uint32_t id)
{
    uint32_t name = s->reqs[seq_req(id)].owner;

    return kv_owned(s->kv, name) > kv_kept(s->kv, name);
}


/* May v, which has blocks, give way for id: one of its own tenant, or one of
 * any other that is over? */
static int
gives(const sched_t *s, uint32_t v, uint32_t id, int own)
{
    if (v == id || v == s->top) {
        return 0;
    }

    return (s->reqs[seq_req(v)].tenant == s->reqs[seq_req(id)].tenant) == own
           && (own || over(s, v));
}


/* The newest of those; NONE: there is none. */
static uint32_t
newest(const sched_t *s, uint32_t id, int own)
{
    uint32_t i, v, found = NONE;

    for (i = s->run_n; i-- > 0 && found == NONE;) {
        v = s->run[i];
        found = gives(s, v, id, own) ? v : NONE;
    }
    for (v = s->held.tail; v != NONE; v = s->links[v].prev) {
        if (gives(s, v, id, own)
            && (found == NONE || sched_later(s, v, found))) {
            found = v;
        }
    }

    return found;
}


/* Is there any of its own?  As a rule its tenant's seats tell. */
static int
has_own(const sched_t *s, uint32_t id)
{
    uint32_t sits = s->tenants[s->reqs[seq_req(id)].tenant].sits;

    /* neither the top nor itself is one */
    return sits > 2 || newest(s, id, 1) != NONE;
}


/* May it take what is kept for others?  blocks: what it has or needs. */
static int
exempt(const sched_t *s, uint32_t id, uint64_t blocks)
{
    int alone = s->run_n == 0 || (s->run_n == 1 && s->run[0] == id);

    return id == s->top || alone
           || (!has_own(s, id) && blocks > kv_most(s->kv, id));
}


uint32_t
sched_share_room(const sched_t *s, uint32_t id, uint32_t want)
{
    uint32_t room = kv_room(s->kv, id, want), avail;

    if (room < want && exempt(s, id, seq_held(s, id) + (uint64_t) want)) {
        avail = kv_avail(s->kv);
        room = avail < want ? avail : want;
    }

    return room;
}


void
sched_reach(sched_t *s, uint32_t id)
{
    uint64_t reach = kv_reach(s->kv, id);

    assert(reach < UINT32_MAX); /* a context's and a block */
    seq_at(s, id)->room = (uint32_t) reach;
}


int
sched_grow(sched_t *s, uint32_t id, uint32_t tokens)
{
    int rc = kv_grow(s->kv, id, tokens);

    if (rc == 0) {
        sched_reach(s, id);
    }

    return rc;
}


int
sched_share_grow(sched_t *s, uint32_t id, uint32_t tokens)
{
    uint32_t missing = kv_missing(s->kv, id, tokens);

    if (missing > 0 && sched_share_room(s, id, missing) < missing) {
        return -1;
    }

    return sched_grow(s, id, tokens);
}


uint32_t
sched_share_victim(const sched_t *s, uint32_t id, uint32_t need)
{
    uint32_t v = NONE;

    if (need > kv_avail(s->kv)) {
        return NONE;
    }
    if (!over(s, id)) {
        v = newest(s, id, 0);
    }
    if (v == NONE) {
        v = newest(s, id, 1);
        v = id != s->top && (v == NONE || sched_later(s, id, v)) ? id : v;
    }

    return v;
}


/* Blocks that must be free for id, which has `blocks` with those it lacks, and
 * all of its tenant that sit. */
static uint64_t
own_need(const sched_t *s, uint32_t id, uint64_t blocks, uint32_t more)
{
    uint32_t tenant = s->reqs[seq_req(id)].tenant, i, v, lacks, holds;
    uint32_t left = s->tenants[tenant].sits;
    uint32_t grows = kv_block_tokens(s->kv) / kv_groups(s->kv);
    uint64_t has = seq_held(s, id), need = sched_lacks(s, id), peak;
    sched_futures_t f;

    memset(&f, 0, sizeof(f));
    sched_futures_add(&f, blocks, more);
    for (i = 0; i < s->run_n && left > 0; i++) {
        v = s->run[i];
        if (s->reqs[seq_req(v)].tenant == tenant) {
            lacks = sched_lacks(s, v);
            holds = seq_held(s, v);
            sched_futures_add(
                &f, lacks + (uint64_t) holds, sched_to_come(s, v));
            has += holds;
            need += lacks;
            left--;
        }
    }
    assert(left == 0);

    peak = sched_futures_peak(&f, grows > 0 ? grows : 1);
    peak = peak > has ? peak - has : 0;

    return peak > need ? peak : need;
}


int
sched_share_lets(const sched_t *s, uint32_t id, uint64_t blocks, uint32_t more)
{
    uint32_t avail = kv_avail(s->kv);
    uint32_t sits = s->tenants[s->reqs[seq_req(id)].tenant].sits;
    uint64_t need;

    /* those that sit are counted first or the owners asked first for all that
     * there is, whichever is less work: as a rule either alone will do */
    if (sits > s->active_n && kv_room(s->kv, id, avail) == avail) {
        return 1;
    }
    need = own_need(s, id, blocks, more);
    if (need > avail) { /* then it fits only if nothing is kept from it */
        need = avail;
    }

    return kv_room(s->kv, id, (uint32_t) need) == need || exempt(s, id, blocks);
}
