#!/usr/bin/env python3
"""Streams whose output obeys beside streams that are free:

    grammar_server.py BUILD FILE

The engine behind nginx (cpu_server.py's), a model with random weights.  All
streams have prompts of as many tokens and write OUTPUT tokens of them; those
that obey have a JSON Schema each, no two the same, and of a size that nobody
reaches the end of.  Free and obeying take turns; a ratio is of a pair of turns,
and the table has the median of TURNS.

JUMPS.  At 1 and 4 streams the same with schemas most of whose text is keys,
with and without jumps.  `forced` is the share of tokens that were not sampled;
the aim is half of it more tokens a second.

CPUS, THREADS, PORT as in cpu.sh; LEVELS ("32") and TURNS (3).
"""
import concurrent.futures
import http.client
import json
import os
import random
import re
import statistics
import sys
import time

import cpu_server as base

LEVELS = tuple(map(int, os.environ.get("LEVELS", "32").split()))
JUMP_LEVELS = (1, 4)
TURNS = int(os.environ.get("TURNS", "3"))
OUTPUT = 64
PROMPT_WORDS = 48
WORDS = ("amber river stone cloud early light quiet garden copper north field "
         "paper winter market signal engine harbor valley silver orange").split()


def prompt(rng):
    return " ".join(rng.choice(WORDS) for _ in range(PROMPT_WORDS))


def name(rng):
    return "_".join(rng.sample(WORDS, 2)) + str(rng.randrange(100))


def schema(rng):
    """Objects of a number, a text, a choice and a date, many of them."""
    props = {}
    for kind in ({"type": "integer", "minimum": 0, "maximum": 10 ** 6},
                 {"type": "string", "minLength": 20, "maxLength": 60},
                 {"enum": [name(rng) for _ in range(5)]},
                 {"type": "string", "format": "date"},
                 {"type": "boolean"}):
        props[name(rng)] = kind
    item = {"type": "object", "properties": props, "required": list(props),
            "additionalProperties": False}
    return {"type": "array", "items": item, "minItems": 100}


def keys(rng):
    """The same where most of the text is known beforehand."""
    props = {"the_" + name(rng) + "_" + name(rng): {"type": "boolean"}
             for _ in range(6)}
    item = {"type": "object", "properties": props, "required": list(props),
            "additionalProperties": False}
    return {"type": "array", "items": item, "minItems": 100}


def ask(body):
    """Tokens of the answer."""
    c = http.client.HTTPConnection("127.0.0.1", base.PORT, timeout=1200)
    c.request("POST", "/v1/completions", json.dumps(body),
              {"Content-Type": "application/json"})
    r = c.getresponse()
    text = r.read()
    if r.status != 200:
        raise SystemExit("%d %s" % (r.status, text[:500]))
    return json.loads(text)["usage"]["completion_tokens"]


def turn(streams, seed, make):
    """Tokens a second; make gives a schema, or is None."""
    rng = random.Random(seed)
    bodies = []
    for _ in range(streams):
        b = {"model": "m", "prompt": prompt(rng), "max_tokens": OUTPUT,
             "temperature": 1, "seed": rng.randrange(1 << 30),
             "ignore_eos": True}
        if make is not None:
            b["guided_json"] = make(rng)
            b["json_options"] = {"whitespace": False}
        bodies.append(b)
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(streams) as pool:
        n = sum(pool.map(ask, bodies))
    return n / (time.monotonic() - began)


def metrics():
    c = http.client.HTTPConnection("127.0.0.1", base.PORT, timeout=10)
    c.request("GET", "/metrics")
    text = c.getresponse().read().decode()
    return {m[1]: float(m[2]) for m in re.finditer(
        r"^llm_(\w+?)(?:_total)?(?:\{[^}]*\})? ([0-9.e+]+)$", text, re.M)}


def obeying(place):
    print("streams   free obeying  ratio  masks, us each  grammars, ms each")
    for streams in LEVELS:
        server = place.ours(streams, base.SLOT)
        turn(2, 0, schema)                      # tries are made, pages touched
        was, free, held = metrics(), [], []
        for k in range(TURNS):
            free.append(turn(streams, 10 + k, None))
            held.append(turn(streams, 10 + k, schema))
        now = metrics()
        d = {k: now[k] - was.get(k, 0) for k in now}
        print("%-7d %6.1f %8.1f %6.2f %15.1f %18.2f" % (
            streams, statistics.median(free), statistics.median(held),
            statistics.median(h / f for h, f in zip(held, free)),
            d["mask_us"] / max(d["masks"], 1),
            d["grammar_us"] / max(d["grammars_compiled"], 1) / 1e3),
            flush=True)
        server.stop()


def jumping(place):
    print("\nstreams   free one by one  jumps  ratio to free  forced  aim")
    for streams in JUMP_LEVELS:
        free, off, on = [], [], []
        for jump, into in (("off", off), ("on", on)):
            server = place.ours(8, base.SLOT, grammar_jump=jump)
            turn(1, 0, keys)
            was = metrics()
            for k in range(TURNS):
                if jump == "on":
                    free.append(turn(streams, 50 + k, None))
                into.append(turn(streams, 50 + k, keys))
            now = metrics()
            server.stop()
        forced = (now["jump_tokens"] - was["jump_tokens"]) \
            / (TURNS * streams * OUTPUT)
        ratio = statistics.median(a / b for a, b in zip(on, free))
        print("%-7d %6.1f %10.1f %6.1f %14.2f %6.0f%% %5.2f" % (
            streams, statistics.median(free), statistics.median(off),
            statistics.median(on), ratio, 100 * forced, 1 + forced / 2),
            flush=True)


def main():
    build, file = sys.argv[1:3]
    place = base.Place(build, file, base.block_bytes(build, file))
    try:
        obeying(place)
        jumping(place)
    finally:
        place.close()


if __name__ == "__main__":
    main()
