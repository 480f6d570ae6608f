/*
 * A machine with total store order, as x86 is: each process has a FIFO store
 * buffer that drains to memory at any time, sees its own stores at once and
 * those of others when they have drained.  A read-modify-write waits until
 * the process's own buffer is empty.
 *
 * The file that includes this defines PROCS, ADDRS and DEPTH (stores that a
 * buffer holds).  With SC defined a store goes to memory at once.
 */

byte mem[ADDRS];
chan buffer[PROCS] = [DEPTH] of { byte, byte };

/* A process's stores that have not drained: how many, and the last value. */
byte pending[PROCS * ADDRS];
byte newest[PROCS * ADDRS];

#ifdef SC
inline store(p, a, v)
{
    atomic { mem[a] = v }
}
#else
inline store(p, a, v)
{
    atomic {
        nfull(buffer[p]);
        buffer[p] ! a, v;
        pending[(p) * ADDRS + a]++;
        newest[(p) * ADDRS + a] = v
    }
}
#endif

inline load(p, a, x)
{
    atomic {
        if
        :: pending[(p) * ADDRS + a] > 0 -> x = newest[(p) * ADDRS + a]
        :: else -> x = mem[a]
        fi
    }
}

inline exchange(p, a, v, x)
{
    atomic {
        empty(buffer[p]);
        x = mem[a];
        mem[a] = v
    }
}

/* Declared first, so that its pids are 0 .. PROCS - 1. */
active [PROCS] proctype drain()
{
    byte a, v;

end:
    do
    :: atomic {
        buffer[_pid] ? a, v;
        mem[a] = v;
        pending[_pid * ADDRS + a]--;
        if
        :: pending[_pid * ADDRS + a] == 0 -> newest[_pid * ADDRS + a] = 0
        :: else
        fi;
        a = 0;
        v = 0
    }
    od
}
