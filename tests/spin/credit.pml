/*
 * The slot lines of engine/llm_wire.h: two workers change `taken` and
 * `cancel` of a slot each, and the engine's loop, which may sleep, must see
 * it.  A worker rings by its attach socket; text_in reads that and passes it
 * on by the loop's bell (engine/bell.h), an eventfd with a flag of its own.
 *
 *   worker                       text_in             loop
 *   store taken, cancel                              bell.sleeps <-> 1
 *   line_sleeps <-> 0                                line_sleeps <-> 1 (each)
 *   got 1: byte into socket  --> takes the bytes     looks at all lines again
 *                                bell.sleeps <-> 0   sleeps on the eventfd
 *                                got 1: eventfd  -->
 *
 * Shown for every interleaving on a TSO machine: the loop never sleeps for
 * ever beside a line that has changed; each change is either seen by its
 * second look or rung.  The bell must be armed first: in the other order a
 * worker's ring can spend the line's flag on a bell that is not armed yet,
 * and the change after it rings no more.
 *
 * Each macro below breaks one rule, and must be found out:
 *   PLAIN_LOOP    the loop stores 1 into line_sleeps where it must exchange
 *   PLAIN_WORKER  the worker loads and stores where it must exchange
 *   NO_RELOOK     the loop sleeps without the second look
 *   BELL_LATE     the loop arms its bell behind line_sleeps
 *   BELL_LAST     the loop arms its bell behind the second look
 */
#define WORKERS 2

#define TAKEN(w) (w)
#define CANCEL(w) (2 + (w))
#define LINE_SLEEPS(w) (4 + (w))
#define BELL_SLEEPS 6

#define PROCS 4
#define ADDRS 7
#define DEPTH 2
#define LOOP 2
#define TEXT_IN 3

#include "tso.pml"

bool byte_in[WORKERS]; /* the sockets; a second byte says nothing new */
bool eventfd;

inline tell(w)
{
#ifdef PLAIN_WORKER
    load(w, LINE_SLEEPS(w), was);
    if
    :: was -> store(w, LINE_SLEEPS(w), 0)
    :: else
    fi;
#else
    exchange(w, LINE_SLEEPS(w), 0, was);
#endif
    if
    :: was -> byte_in[w] = true
    :: else
    fi
}

proctype worker(byte w)
{
    bit was;

    store(w, TAKEN(w), 1);
    if
    :: tell(w)
    :: true /* both changes in one turn */
    fi;
    store(w, CANCEL(w), 1);
    tell(w)
}

active proctype text_in()
{
    bit was;

end:
    do
    :: atomic {
            if
            :: byte_in[0] -> byte_in[0] = false
            :: byte_in[1] -> byte_in[1] = false
            fi
        };
        exchange(TEXT_IN, BELL_SLEEPS, 0, was);
        if
        :: was -> eventfd = true
        :: else
        fi;
        was = 0
    od
}

/* Counts the words that have changed: sum. */
inline look()
{
    sum = 0;
    load(LOOP, TAKEN(0), x); sum = sum + x;
    load(LOOP, TAKEN(1), x); sum = sum + x;
    load(LOOP, CANCEL(0), x); sum = sum + x;
    load(LOOP, CANCEL(1), x); sum = sum + x;
    x = 0
}

inline arm_bell()
{
    exchange(LOOP, BELL_SLEEPS, 1, x);
    x = 0
}

inline arm_lines()
{
#ifdef PLAIN_LOOP
    store(LOOP, LINE_SLEEPS(0), 1);
    store(LOOP, LINE_SLEEPS(1), 1)
#else
    exchange(LOOP, LINE_SLEEPS(0), 1, x);
    exchange(LOOP, LINE_SLEEPS(1), 1, x);
    x = 0
#endif
}

active proctype loop()
{
    byte seen, sum, x;

    atomic {
        run worker(0);
        run worker(1)
    }

    do
    :: look();
        seen = sum;
        if
        :: seen == 2 * WORKERS -> break
        :: else
        fi;

#if !defined(BELL_LATE) && !defined(BELL_LAST)
        arm_bell();
#endif
        arm_lines();
#ifdef BELL_LATE
        arm_bell();
#endif
#ifndef NO_RELOOK
        look();
#endif
#ifdef BELL_LAST
        arm_bell();
#endif
        if
        :: sum != seen -> store(LOOP, BELL_SLEEPS, 0) /* bell_stay */
        :: else ->
            eventfd;
            store(LOOP, BELL_SLEEPS, 0);
            atomic {
                empty(buffer[LOOP]); /* a system call */
                eventfd = false
            }
        fi;
        seen = 0;
        sum = 0
    od
}
