/*
 * The command line of fake_engine.c: how many tokens, how fast, and in which
 * way it misbehaves.
 */
#ifndef FAKE_OPTIONS_H
#define FAKE_OPTIONS_H

#include "llm_wire.h"

#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MORE_MAX 32 /* bytes of --newer */

typedef struct {
    const char *listen, *model, *garbage;
    unsigned rate, tokens, bytes, slots, error, delay_ms;
    unsigned think; /* first tokens that are thought, where that is wanted */
    int die_after;  /* tokens; -1: never */
    int refuse, bad_version, hang_hello, never_done, not_ready, no_heartbeat;
    int stamps, hold;
    uint64_t mutate; /* seed; 0: none */
    unsigned more;   /* bytes that a newer version has behind each fixed part */
} options_t;


static void
fake_usage(void)
{
    fprintf(stderr,
        "fake_engine PATH [--model NAME] [--slots N] [--tokens N]\n"
        "    [--bytes N] [--rate TOKENS/S] [--delay MS] [--error LLM_ERR]\n"
        "    [--refuse] [--bad-version] [--hang-hello] [--not-ready]\n"
        "    [--no-heartbeat] [--never-done] [--die-after TOKENS] [--hold]\n"
        "    [--stamps] [--mutate SEED] [--newer BYTES] [--think TOKENS]\n"
        "    [--garbage-ring[=tail|len|type|epoch|slot|gen|choice|text|done]]"
        "\n");
    exit(2);
}


/* An option without a value; 0 if c is none. */
static int
fake_switch(options_t *o, int c)
{
    int *of[] = {&o->refuse, &o->bad_version, &o->hang_hello, &o->not_ready,
        &o->no_heartbeat, &o->never_done, &o->stamps, &o->hold};
    static const char letters[] = "RVHNBDSW";
    const char *at = strchr(letters, c);

    if (c == 0 || at == NULL) {
        return 0;
    }
    *of[at - letters] = 1;

    return 1;
}


static void
fake_options(options_t *o, int argc, char **argv)
{
    static const struct option list[] = {{"model", 1, 0, 'm'},
        {"slots", 1, 0, 's'}, {"tokens", 1, 0, 't'}, {"bytes", 1, 0, 'b'},
        {"rate", 1, 0, 'r'}, {"delay", 1, 0, 'd'}, {"error", 1, 0, 'e'},
        {"refuse", 0, 0, 'R'}, {"bad-version", 0, 0, 'V'},
        {"hang-hello", 0, 0, 'H'}, {"not-ready", 0, 0, 'N'},
        {"no-heartbeat", 0, 0, 'B'}, {"never-done", 0, 0, 'D'},
        {"die-after", 1, 0, 'x'}, {"garbage-ring", 2, 0, 'g'},
        {"stamps", 0, 0, 'S'}, {"hold", 0, 0, 'W'}, {"mutate", 1, 0, 'M'},
        {"newer", 1, 0, 'n'}, {"think", 1, 0, 'T'}, {0, 0, 0, 0}};
    int c;

    memset(o, 0, sizeof(*o));
    o->model = "fake";
    o->slots = 64;
    o->tokens = 16;
    o->die_after = -1;

    while ((c = getopt_long(argc, argv, "", list, NULL)) != -1) {
        switch (c) {
        case 'm':
            o->model = optarg;
            break;
        case 's':
            o->slots = (unsigned) atoi(optarg);
            break;
        case 't':
            o->tokens = (unsigned) atoi(optarg);
            break;
        case 'b':
            o->bytes = (unsigned) atoi(optarg);
            break;
        case 'r':
            o->rate = (unsigned) atoi(optarg);
            break;
        case 'd':
            o->delay_ms = (unsigned) atoi(optarg);
            break;
        case 'e':
            o->error = (unsigned) atoi(optarg);
            break;
        case 'x':
            o->die_after = atoi(optarg);
            break;
        case 'g':
            o->garbage = optarg ? optarg : "tail";
            break;
        case 'n':
            o->more = (unsigned) atoi(optarg) % (MORE_MAX + 1);
            break;
        case 'T':
            o->think = (unsigned) atoi(optarg);
            break;
        case 'M':
            o->mutate = strtoull(optarg, NULL, 0);
            break;
        default:
            if (!fake_switch(o, c)) {
                fake_usage();
            }
        }
    }

    if (optind < argc) {
        o->listen = argv[optind];
    }

    if (o->listen == NULL || o->slots == 0 || o->slots > LLM_SLOTS_MAX) {
        fake_usage();
    }
}

#endif
