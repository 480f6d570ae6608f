/*
 * The ring of engine/llm_ring.h with its doorbell: one producer commits N
 * records into a ring of K, one consumer takes them and sleeps in between.
 *
 * Shown for every interleaving on a TSO machine: the consumer never sleeps
 * for ever beside a committed record (that would be an invalid end state),
 * and it reads each record whole and before it is overwritten (assertions).
 * The doorbell is a byte in a socket that holds CAP of them; a send into a
 * full one fails and is ignored.  The consumer waits for it level or edge
 * triggered, and may be woken by something else in between.
 *
 * Each macro below breaks one rule, and must be found out:
 *   PLAIN_CONSUMER  stores 1 into sleeps where llm_ring_may_sleep exchanges
 *   PLAIN_PRODUCER  loads and stores where llm_ring_must_wake exchanges
 *   NO_RECHECK      sleeps without the second look at tail
 *   LATE_RECV       empties the socket between that look and the sleep
 *   TAIL_FIRST      publishes tail before the record's bytes
 *   HEAD_FIRST      publishes head before it has copied the record
 * With SC defined, PLAIN_CONSUMER is harmless: the store buffer is to blame.
 */
#define N 4
#define K 2
#define CAP 1
#define OTHER_WAKES 1

#define TAIL 0
#define HEAD 1
#define SLEEPS 2
#define DATA(i) (3 + (i) % K)

#define PROCS 2
#define ADDRS 5
#define DEPTH 3
#define PRODUCER 0
#define CONSUMER 1

#include "tso.pml"

byte bytes;  /* in the socket */
bool edge;   /* one came since the last wake-up */

inline must_wake()
{
#ifdef PLAIN_PRODUCER
    load(PRODUCER, SLEEPS, was);
    if
    :: was -> store(PRODUCER, SLEEPS, 0)
    :: else
    fi;
#else
    exchange(PRODUCER, SLEEPS, 0, was);
#endif
    if
    :: was ->
        atomic {
            if
            :: bytes < CAP -> bytes++; edge = true
            :: else
            fi
        }
    :: else
    fi;
    owed = false
}

inline commit()
{
#ifdef TAIL_FIRST
    store(PRODUCER, TAIL, pos + 1);
    store(PRODUCER, DATA(pos), pos + 1);
#else
    store(PRODUCER, DATA(pos), pos + 1);
    store(PRODUCER, TAIL, pos + 1);
#endif
    pos++;
    owed = true
}

active proctype producer()
{
    byte pos, head;
    bit was;
    bool owed;

    do
    :: pos < N ->
        load(PRODUCER, HEAD, head);
        if
        :: pos - head < K ->
            commit();
            /* a turn has one record or several */
            if
            :: must_wake()
            :: true
            fi
        :: else ->
            if
            :: owed -> must_wake()
            :: else
            fi;
            mem[HEAD] != head /* tries again in a later turn */
        fi
    :: else -> break
    od;

    if
    :: owed -> must_wake()
    :: else
    fi
}

inline take_all()
{
    load(CONSUMER, TAIL, tail);
    do
    :: pos != tail ->
#ifdef HEAD_FIRST
        store(CONSUMER, HEAD, pos + 1);
#endif
        load(CONSUMER, DATA(pos), x);
        assert(x == pos + 1);
        x = 0;
        pos++;
#ifndef HEAD_FIRST
        store(CONSUMER, HEAD, pos)
#endif
    :: else -> break
    od
}

inline wait_for_bell()
{
    if
    :: !et && bytes > 0
    :: atomic { et && edge -> edge = false }
    :: others < OTHER_WAKES -> others++
    fi;
#ifndef LATE_RECV
    bytes = 0
#endif
}

active proctype consumer()
{
    byte pos, tail, x, others;
    bool et; /* the socket is watched edge triggered */

    if
    :: et = true
    :: et = false
    fi;

    do
    :: take_all();
        if
        :: pos == N -> break
        :: else
        fi;

#ifdef PLAIN_CONSUMER
        store(CONSUMER, SLEEPS, 1);
#else
        exchange(CONSUMER, SLEEPS, 1, x);
        x = 0;
#endif
#ifndef NO_RECHECK
        load(CONSUMER, TAIL, tail);
#endif
#ifdef LATE_RECV
        bytes = 0;
#endif
        if
        :: tail != pos ->
            exchange(CONSUMER, SLEEPS, 0, x);
            x = 0
        :: else -> wait_for_bell()
        fi
    od
}
