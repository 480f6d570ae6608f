/*
 * llm-top: what an engine does, live in a terminal.
 *
 * DESIGN.  It reads the engine's state page (top_read.c), which costs the
 * engine nothing however often it is done, and draws (top_draw.c).  Here is
 * the rest: options, the clock, the terminal.  No library but C's own.
 *
 *      open ──> take ──> draw ──> write what changed ──> wait for a key ──┐
 *       ^         ^      or a signal, or for the time to be over          │
 *       │         └───────────────────────────────────────────────────────┘
 *       └── no heartbeat for TOP_DEAD_US, or a successor has the path
 *
 * FLICKER.  Only lines that changed are written, each whole, in one write,
 * bracketed as one update for terminals that know that; nothing is erased.
 *
 * THE TERMINAL is put back however this ends: signals only set a flag, and are
 * blocked but in the wait, so there is one way out.  Stopped (^Z) it is given
 * back and taken again.  What is no terminal gets one picture of plain text.
 */
#include "clock.h"
#include "top.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define TOP_VERSION  "0.1.0"
#define TOP_PATH     "/run/llm/engine.sock"
#define TOP_DEAD_US  3000000  /* heartbeats come at least once a second */
#define TOP_RATE_US  2000000  /* rates are of this long */
#define TOP_LONG_US  30000000 /* latencies */
#define TOP_PAST     64       /* moments that are remembered, at least */
#define TOP_ROWS_MAX 500
#define TOP_SLOW_MS  100 /* a terminal that takes no more is asked again */

typedef struct {
    const char *path;
    uint64_t delay_us;
    int once;
    int steps;
    int color;
    int utf8;
    top_sort_t sort;
} options_t;

typedef struct {
    options_t o;
    top_source_t source;
    top_snap_t *now;
    top_counts_t *past; /* [TOP_PAST], a ring; past_n were ever put in */
    uint64_t past_n;
    uint64_t past_us;              /* between two of them at least */
    uint64_t beat_us[LLM_THREADS]; /* when each was seen to live */
    uint64_t beats[LLM_THREADS];
    uint64_t tried_us;
    top_frame_t frame, shown;
    char *out; /* [out_max] what is to be written */
    size_t out_max;
    uint32_t rows, cols, scroll;
    int paused;
    int redraw; /* nothing on the screen is as it was left */
    int taken;  /* the terminal is ours */
    int keys;   /* there is a keyboard */
    struct termios was;
    char note[256];
} top_t;

static volatile sig_atomic_t top_quit, top_resized, top_stopped;


/* Only says that it came; the loop looks behind each wait. */
static void
on_signal(int sig)
{
    if (sig == SIGWINCH || sig == SIGCONT) {
        top_resized = 1;
    } else if (sig == SIGTSTP) {
        top_stopped = 1;
    } else {
        top_quit = sig;
    }
}


/* --- options -------------------------------------------------------------- */

static void
usage(FILE *f)
{
    fprintf(f,
        "usage: llm-top [options] [SOCKET]\n"
        "\n"
        "Shows what an llm-engine does: its steps, KV blocks, queue, rates "
        "and\n"
        "latencies, the tenants' shares, and each request that runs or waits.\n"
        "Reads memory that the engine shares, and costs it nothing.\n"
        "\n"
        "  SOCKET          the engine's (option listen); default\n"
        "                  " TOP_PATH "\n"
        "  -d, --delay S   seconds between two pictures, 0.1 to 60; default 1\n"
        "  -1, --once      one picture as plain text, of that long, and exit;\n"
        "                  so it is where the output is no terminal\n"
        "  -l, --steps     no picture, but a line for each step as it runs:\n"
        "                  when, its microseconds, decoding rows, prompt "
        "tokens\n"
        "  -s, --sort HOW  order of requests: state, age, tokens, blocks,\n"
        "                  tenant\n"
        "  -a, --ascii     no other characters; so it is without UTF-8\n"
        "  -m, --mono      no colours; so it is with NO_COLOR set\n"
        "  -h, --help      this\n"
        "  -V, --version\n"
        "\n"
        "Keys: q quits, s changes the order, space stops and goes on, arrows,\n"
        "j, k and page keys scroll the requests, r draws all again.\n"
        "\n"
        "SHARE is a tenant's part of the tokens computed in the last two\n"
        "seconds; steps are the last 512; latencies are of the last half\n"
        "minute.  Who may connect to the socket may look: its group is the\n"
        "engine's option socket_group, and what is shown names tenants.\n");
}


static int
parse_sort(const char *text, top_sort_t *sort)
{
    uint32_t i;

    for (i = 0; i < TOP_SORTS_N; i++) {
        if (strcmp(text, top_sort_name((top_sort_t) i)) == 0) {
            *sort = (top_sort_t) i;
            return 0;
        }
    }

    return -1;
}


/* Seconds as text to microseconds; 0: they make no sense. */
static uint64_t
parse_delay(const char *text)
{
    char *end;
    double s = strtod(text, &end);

    return end != text && *end == '\0' && s >= 0.1 && s <= 60
               ? (uint64_t) (s * 1e6)
               : 0;
}


/* -1: go on; else the exit status. */
static int
parse(options_t *o, int argc, char **argv)
{
    static const struct option longs[] = {{"delay", 1, NULL, 'd'},
        {"once", 0, NULL, '1'}, {"steps", 0, NULL, 'l'}, {"sort", 1, NULL, 's'},
        {"ascii", 0, NULL, 'a'}, {"mono", 0, NULL, 'm'}, {"help", 0, NULL, 'h'},
        {"version", 0, NULL, 'V'}, {NULL, 0, NULL, 0}};
    int c, bad = 0;

    while ((c = getopt_long(argc, argv, "d:1ls:amhV", longs, NULL)) != -1) {
        switch (c) {
        case 'd':
            o->delay_us = parse_delay(optarg);
            bad |= o->delay_us == 0;
            break;
        case '1':
            o->once = 1;
            break;
        case 'l':
            o->steps = 1;
            break;
        case 's':
            bad |= parse_sort(optarg, &o->sort) != 0;
            break;
        case 'a':
            o->utf8 = 0;
            break;
        case 'm':
            o->color = 0;
            break;
        case 'h':
            usage(stdout);
            return 0;
        case 'V':
            printf(
                "llm-top %s, wire version %d\n", TOP_VERSION, LLM_WIRE_VERSION);
            return 0;
        default:
            bad = 1;
            break;
        }
    }

    if (optind < argc) {
        o->path = argv[optind++];
    }
    if (bad || optind < argc) {
        usage(stderr);
        return 2;
    }

    return -1;
}


/* --- the engine ----------------------------------------------------------- */

/* Forgets what was, as another engine counts from zero. */
static void
forget(top_t *t)
{
    uint32_t i;

    t->past_n = 0;
    for (i = 0; i < LLM_THREADS; i++) {
        t->beats[i] = 0;
        t->beat_us[i] = clock_us();
    }
}


/* Asks for a page; an old one stays if there is none. 0 or -1 with note. */
static int
reach(top_t *t)
{
    const llm_state_t *was = t->source.page;
    top_source_t s;

    t->tried_us = clock_us();
    if (top_open(&s, t->o.path, t->note, sizeof(t->note)) != 0) {
        return -1;
    }

    if (was != NULL && t->past_n > 0
        && ((const llm_state_t *) s.page)->pid == was->pid
        && ((const llm_state_t *) s.page)->heartbeat[0] == was->heartbeat[0]) {
        top_close(&s); /* the same one, which still hangs */
        return -1;
    }

    top_close(&t->source);
    t->source = s;
    t->note[0] = '\0';
    forget(t);

    return 0;
}


/* Remembers this moment, if the last one is long enough ago. */
static void
remember(top_t *t)
{
    const top_counts_t *c = &t->now->c;
    uint64_t last = t->past_n > 0 ? t->past[(t->past_n - 1) % TOP_PAST].us : 0;

    if (t->past_n == 0 || c->us >= last + t->past_us) {
        t->past[t->past_n++ % TOP_PAST] = *c;
    }
}


/* The latest moment at least age ago, or the first one; NULL: none is. */
static const top_counts_t *
recall(const top_t *t, uint64_t age)
{
    uint64_t now = t->now->c.us, k, n = t->past_n;
    const top_counts_t *c = NULL;

    for (k = n; k > 0 && n - k < TOP_PAST; k--) {
        c = &t->past[(k - 1) % TOP_PAST];
        if (c->us + age <= now) {
            break;
        }
    }

    return c == NULL || c->us >= now ? NULL : c;
}


/* Says which of the engine's threads stand still, if any do. 1: one does. */
static int
stands(top_t *t, uint64_t now)
{
    static const char *const names[LLM_THREADS] = {
        "its text_in", "its loop", "its text_out"};
    const top_counts_t *c = &t->now->c;
    uint32_t i, n = 0, last = 0;

    for (i = 0; i < LLM_THREADS; i++) {
        if (c->beats[i] != t->beats[i]) {
            t->beats[i] = c->beats[i];
            t->beat_us[i] = now;
        }
        if (now >= t->beat_us[i] + TOP_DEAD_US) {
            last = i;
            n++;
        }
    }

    if (n > 0) {
        snprintf(t->note, sizeof(t->note),
            "process %u: %s shows no sign of life since %u s", c->pid,
            n == LLM_THREADS ? "it" : names[last],
            (unsigned) ((now - t->beat_us[last]) / 1000000));
    }

    return n > 0;
}


/* A look at the engine, and at whether it lives. */
static void
look(top_t *t)
{
    uint64_t now = clock_us();
    top_counts_t *c = &t->now->c;
    int dead;

    if (t->source.page == NULL && now >= t->tried_us + t->o.delay_us) {
        (void) reach(t);
    }
    if (t->source.page == NULL) {
        memset(c, 0, sizeof(*c));
        t->now->steps_n = t->now->rows_n = 0;
        return;
    }

    top_take(&t->source, now, t->now);
    dead = stands(t, now);

    /* it has died, or its successor is there, or soon will be */
    if ((dead || c->draining) && now >= t->tried_us + t->o.delay_us
        && reach(t) == 0) {
        top_take(&t->source, now, t->now);
        dead = 0;
    }

    if (dead) {
        (void) stands(t, now); /* what reach() said is less */
    } else {
        snprintf(t->note, sizeof(t->note), "%s",
            c->listed ? "" : "this engine keeps no list of its requests");
    }
}


/* --- the terminal --------------------------------------------------------- */

/* Writes all of it; -1: nobody is there any more. */
static int
say(const char *text, size_t n)
{
    struct pollfd p = {STDOUT_FILENO, POLLOUT, 0};
    ssize_t k;

    while (n > 0) {
        k = write(STDOUT_FILENO, text, n);
        if (k == -1 && errno != EINTR && errno != EAGAIN) {
            return -1;
        }
        if (k > 0) {
            text += k;
            n -= (size_t) k;
        } else if (top_quit) {
            return -1;
        } else {
            (void) poll(&p, 1, TOP_SLOW_MS);
        }
    }

    return 0;
}


/* The other screen, no cursor, no wrapping, keys as they come. */
static void
take_terminal(top_t *t)
{
    static const char on[] = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
    struct termios raw;

    if (t->keys) {
        raw = t->was;
        raw.c_lflag &= ~(tcflag_t) (ICANON | ECHO);
        raw.c_cc[VMIN] = 0;
        raw.c_cc[VTIME] = 0;
        (void) tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    }
    (void) say(on, sizeof(on) - 1);
    t->taken = t->redraw = 1;
}


/*
 * In the reverse order of taking.  Does nothing when it is not ours, so it may
 * be called on any way out.
 */
static void
give_terminal(top_t *t)
{
    static const char off[] = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";

    if (t->taken) {
        (void) say(off, sizeof(off) - 1);
        if (t->keys) {
            (void) tcsetattr(STDIN_FILENO, TCSADRAIN, &t->was);
        }
        t->taken = 0;
    }
}


/*
 * How large the terminal is; one that does not say is taken for 24 lines, and
 * for what COLUMNS says.
 */
static void
measure(top_t *t)
{
    struct winsize w;
    const char *cols = getenv("COLUMNS");

    t->rows = 24;
    t->cols = cols != NULL && atoi(cols) > 0 ? (uint32_t) atoi(cols) : 100;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0
        && w.ws_row > 0) {
        t->rows = w.ws_row;
        t->cols = w.ws_col;
    }
    t->rows = t->rows < TOP_ROWS_MAX ? t->rows : TOP_ROWS_MAX;
    t->cols = t->cols < TOP_COLS_MAX ? t->cols : TOP_COLS_MAX;
    t->cols = t->cols > TOP_COLS_MIN ? t->cols : TOP_COLS_MIN;
}


/* Writes the lines that are not as they are shown. */
static int
update(top_t *t)
{
    static const char begin[] = "\x1b[?2026h", end[] = "\x1b[?2026l";
    size_t n = sizeof(begin) - 1, len;
    uint32_t i;

    memcpy(t->out, begin, n);
    if (t->redraw) {
        n += (size_t) sprintf(t->out + n, "\x1b[0m\x1b[2J");
    }
    for (i = 0; i < t->frame.lines_n; i++) {
        if (!t->redraw && i < t->shown.lines_n
            && strcmp(t->frame.lines[i], t->shown.lines[i]) == 0) {
            continue;
        }
        len = strlen(t->frame.lines[i]);
        n += (size_t) sprintf(t->out + n, "\x1b[%u;1H", i + 1);
        memcpy(t->out + n, t->frame.lines[i], len);
        n += len;
        memcpy(t->shown.lines[i], t->frame.lines[i], len + 1);
    }
    t->shown.lines_n = t->frame.lines_n;
    t->redraw = 0;
    if (n == sizeof(begin) - 1) {
        return 0;
    }
    memcpy(t->out + n, end, sizeof(end) - 1);
    n += sizeof(end) - 1;
    assert(n <= t->out_max);

    return say(t->out, n);
}


/* --- pictures ------------------------------------------------------------- */

/* Draws what was seen last into the frame; rows 0: as text. */
static void
draw(top_t *t, uint32_t rows)
{
    char clock[32] = "", keys[128];
    time_t sec = time(NULL);
    top_view_t v;
    struct tm tm;

    if (localtime_r(&sec, &tm) != NULL) {
        (void) strftime(clock, sizeof(clock), "%H:%M:%S", &tm);
    }
    snprintf(keys, sizeof(keys),
        " q quit   s order: %s   space %s   j k scroll",
        top_sort_name(t->o.sort), t->paused ? "go on" : "stop");

    memset(&v, 0, sizeof(v));
    v.rows = rows;
    v.cols = t->cols;
    v.utf8 = t->o.utf8;
    v.color = t->o.color;
    v.sort = t->o.sort;
    v.scroll = t->scroll;
    v.clock = t->paused ? "stopped" : clock;
    v.note = t->note;
    v.keys = keys;
    top_draw(
        &t->frame, t->now, recall(t, TOP_RATE_US), recall(t, TOP_LONG_US), &v);
}


/*
 * One picture as text; the exit status.  Two looks, as rates are differences:
 * what one look could say of them is their mean since the engine's start, which
 * nobody asks for who looks now.
 */
static int
once(top_t *t)
{
    const struct timespec wait = {(time_t) (t->o.delay_us / 1000000),
        (long) (t->o.delay_us % 1000000) * 1000};
    uint32_t i;
    size_t n;
    char *line;

    if (reach(t) != 0) {
        fprintf(stderr, "llm-top: %s\n", t->note);
        return 1;
    }

    look(t);
    remember(t);
    (void) nanosleep(&wait, NULL);
    look(t);
    draw(t, 0);

    for (i = 0; i < t->frame.lines_n; i++) {
        line = t->frame.lines[i];
        n = strlen(line);
        while (n > 0 && line[n - 1] == ' ') {
            line[--n] = '\0';
        }
        puts(line);
    }

    return fflush(stdout) == 0 ? 0 : 1;
}


/* What a key says: its bytes at p, n of them; how many it was. */
static size_t
key(top_t *t, const char *p, size_t n)
{
    uint32_t page = t->rows > 20 ? t->rows / 2 : 5, down = 0, up = 0;
    size_t used = 1;

    if (n >= 3 && p[0] == '\x1b' && (p[1] == '[' || p[1] == 'O')) {
        used = n >= 4 && p[3] == '~' ? 4 : 3;
        up = p[2] == 'A' ? 1 : p[2] == '5' ? page : 0;
        down = p[2] == 'B' ? 1 : p[2] == '6' ? page : 0;
    }

    switch (p[0]) {
    case 'q':
    case 'Q':
        top_quit = -1;
        break;
    case 's':
        t->o.sort = (top_sort_t) ((t->o.sort + 1) % TOP_SORTS_N);
        break;
    case ' ':
        t->paused = !t->paused;
        break;
    case 'r':
    case '\f':
        t->redraw = 1;
        break;
    case 'j':
        down = 1;
        break;
    case 'k':
        up = 1;
        break;
    default:
        break;
    }

    t->scroll = t->scroll > up ? t->scroll - up : 0;
    t->scroll += down;
    t->scroll = t->scroll < t->now->rows_n ? t->scroll : t->now->rows_n;

    return used;
}


/* Waits until a moment, for keys and signals. 1: something is to be drawn. */
static int
rest(top_t *t, uint64_t until, const sigset_t *open)
{
    uint64_t now = clock_us(), left = until > now ? until - now : 0;
    struct timespec ts = {
        (time_t) (left / 1000000), (long) (left % 1000000) * 1000};
    struct pollfd p = {t->keys ? STDIN_FILENO : -1, POLLIN, 0};
    char buf[64];
    ssize_t n;
    size_t at;

    if (ppoll(&p, 1, &ts, open) <= 0 || p.revents == 0) {
        return top_resized || top_stopped || top_quit;
    }

    n = read(STDIN_FILENO, buf, sizeof(buf));
    if (n == 0 || (n == -1 && errno != EAGAIN && errno != EINTR)) {
        top_quit = SIGHUP; /* the terminal has gone */
        return 1;
    }
    for (at = 0; n > 0 && at < (size_t) n;) {
        at += key(t, buf + at, (size_t) n - at);
    }

    return 1;
}


/* Stops as the shell wants it, with its terminal given back. */
static void
stop(top_t *t)
{
    sigset_t set;

    give_terminal(t);
    (void) signal(SIGTSTP, SIG_DFL);
    (void) raise(SIGTSTP);
    (void) sigemptyset(&set);
    (void) sigaddset(&set, SIGTSTP);
    (void) sigprocmask(SIG_UNBLOCK, &set, NULL); /* here it stops */
    (void) sigprocmask(SIG_BLOCK, &set, NULL);
    (void) signal(SIGTSTP, on_signal);
    take_terminal(t);
}


/* Until q, or a signal; which one it was, or 0. */
static int
live(top_t *t)
{
    static const int signals[] = {
        SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP, SIGCONT};
    sigset_t set, open;
    uint64_t next = 0;
    size_t i;

    (void) sigemptyset(&set);
    for (i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        (void) sigaddset(&set, signals[i]);
        (void) signal(signals[i], on_signal);
    }
    (void) signal(SIGPIPE, SIG_IGN);
    (void) sigprocmask(SIG_BLOCK, &set, &open);

    t->keys = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &t->was) == 0;
    measure(t);
    take_terminal(t);
    (void) reach(t);

    while (!top_quit) {
        if (clock_us() >= next) {
            if (!t->paused) {
                look(t);
            }
            next = clock_us() + t->o.delay_us;
        }
        draw(t, t->rows);
        if (t->source.page != NULL && !t->paused) {
            remember(t);
        }
        if (update(t) != 0) {
            break;
        }
        (void) rest(t, next, &open);
        if (top_stopped) {
            top_stopped = 0;
            stop(t);
        }
        if (top_resized) {
            top_resized = 0;
            measure(t);
            t->redraw = 1;
        }
    }

    give_terminal(t);
    (void) sigprocmask(SIG_SETMASK, &open, NULL);

    return top_quit > 0 ? top_quit : 0;
}


/* --- main ----------------------------------------------------------------- */

/* All memory that there will be. */
static int
open_all(top_t *t)
{
    uint32_t lines = TOP_ROWS_MAX;

    if (t->o.once) {
        lines = LLM_LIVE_ROWS_MAX + LLM_LIVE_TENANTS + 32;
    }
    t->out_max = (size_t) TOP_ROWS_MAX * (TOP_LINE_MAX + 16) + 64;
    t->now = calloc(1, sizeof(*t->now));
    t->past = calloc(TOP_PAST, sizeof(*t->past));
    t->out = malloc(t->out_max);

    /* so that a minute is remembered, or two pictures */
    t->past_us = TOP_LONG_US * 2 / TOP_PAST;
    t->past_us = t->past_us < t->o.delay_us ? 0 : t->past_us - 1000;

    return t->now == NULL || t->past == NULL || t->out == NULL
                   || top_frame_open(&t->frame, lines) != 0
                   || top_frame_open(&t->shown, TOP_ROWS_MAX) != 0
               ? -1
               : 0;
}


int
main(int argc, char **argv)
{
    int rc, sig = 0;
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    top_t t;

    memset(&t, 0, sizeof(t));
    (void) setlocale(LC_CTYPE, "");
    t.o.path = TOP_PATH;
    t.o.delay_us = 1000000;
    t.o.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    t.o.color = no_color == NULL || no_color[0] == '\0';

    rc = parse(&t.o, argc, argv);
    if (rc != -1) {
        return rc;
    }

    t.o.once |=
        !isatty(STDOUT_FILENO) || term == NULL || strcmp(term, "dumb") == 0;
    t.o.color = t.o.color && !t.o.once;

    if (t.o.steps) {
        rc = top_steps(t.o.path, t.note, sizeof(t.note));
        fprintf(stderr, "llm-top: %s\n", t.note);
        return rc == 0 ? 0 : 1;
    }

    rc = 1;
    if (open_all(&t) != 0) {
        fprintf(stderr, "llm-top: out of memory\n");
    } else if (t.o.once) {
        measure(&t);
        rc = once(&t);
    } else {
        sig = live(&t);
        rc = 0;
    }

    top_close(&t.source);
    top_frame_close(&t.frame);
    top_frame_close(&t.shown);
    free(t.now);
    free(t.past);
    free(t.out);

    if (sig > 0) {
        (void) signal(sig, SIG_DFL);
        (void) raise(sig);
    }

    return rc;
}
