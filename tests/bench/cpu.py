#!/usr/bin/env python3
"""The measuring part of tests/bench/cpu.sh that looks at single steps:

    cpu.py BUILD quick|short|steps|cost SHAPE TYPE FILE

The engine (cpu.c) and llama.cpp (peer/llama.c) have the same file loaded and
take turns, a slice of about a second each: ours, theirs, ours, theirs.  Both
have the same CPUs and as many threads.  A ratio is of a pair of slices; the
table has the median of a cell's ratios, and their quartiles.  First llama.cpp
is tried in each way that it can be told to compute (flash attention, size of a
micro-batch, weights repacked or mapped), and its best for the cell is used.

BOUND.  Of the same seconds, by probe.c, which takes its turn after each pair:
a step takes at least as long as its bytes take to be read, weights and the
keys and values that are looked at, and at least as long as its multiply-adds
take at the peak of the instruction for the type (fp32 for F16, bf16 where there
is one, int8, int4), those of attention at fp32's.  What is held against it is
our upper quartile against the probes', as others' load only ever takes away.

QUIET.  Threads that wait for a CPU, because others work on the machine too,
are counted by the kernel; llama.cpp's, which spin at barriers, lose far more by
it than the engine's.  So a pair in which a thread waited for more than a part
of its time is taken again, a few times, and then the least disturbed counts.
The column `wait` has what the worse of both still waited, in percent.  With
one thread (THREADS=1) there are no barriers, and what it waited is taken off
its time: so figures can be had where others never stop working.

MET.  Ratio at least the target, or 85 % of the bound; for one stream both.

A line before the tables says of each type: bytes of the file, of the engine's
memory, and how long the two took to load.

COST.  How the engine's own cost grows with threads and sequences, and which op
has what part of it, beside its own bound: what it has to read and multiply.
Figures are the best of a few turns.
"""
import json
import os
import statistics
import subprocess
import sys
import time

BEGIN = 16          # tokens of a sequence before it decodes
PROMPT = 512
ROWS = (1, 8, 16, 32)
REACHED = 0.85      # of the bound: enough
PAUSE_S = 0.02      # spinning threads of who was last go to sleep
PROBE_MIB = 512     # many times any cache
STEPS_MAX = 200
QUIET = 0.03        # of a thread's time
TARGETS = {         # prefill, decodes of 8 and more
    "F16": (1.1, 1.1), "BF16": (1.3, 1.5), "Q8_0": (3.0, 3.0),
    "Q4_0": (1.8, 2.0), "Q4_K_M": (2.2, 2.0)}
ALONE = 0.97        # decode of one stream, any type

# pairs, slices of one stream, times a pair is taken at most, seconds of a
# slice, ways to try: modes of peer/llama.c, micro-batches, turns of each
SETTINGS = {
    "quick": (1, 3, 1, 0.5, (3,), (512,), 1),
    "short": (3, 8, 2, 0.7, (3,), (512, 128), 1),
    "steps": (5, 20, 4, 1.0, (3, 1), (512, 128), 2)}


class Program:
    """One of the three: a line in, a number out."""

    def __init__(self, name, *args):
        cpus = os.environ["CPUS"]
        self.name = name
        self.p = subprocess.Popen(["taskset", "-c", cpus, *map(str, args)],
                                  stdin=subprocess.PIPE, text=True,
                                  stdout=subprocess.PIPE)
        self.ready = self.line()

    def line(self):
        line = self.p.stdout.readline()
        if not line:
            raise SystemExit("%s ended" % self.name)
        return line.strip()

    def waited(self):
        """Seconds that its threads have waited for a CPU so far."""
        pid = self.p.pid    # taskset became it
        ns = 0
        for task in os.listdir("/proc/%d/task" % pid):
            try:
                with open("/proc/%d/task/%s/schedstat" % (pid, task)) as f:
                    ns += int(f.read().split()[1])
            except (OSError, IndexError):
                pass        # it has ended
        return ns / 1e9

    def ask(self, *words):
        before, began = self.waited(), time.monotonic()
        self.p.stdin.write(" ".join(map(str, words)) + "\n")
        self.p.stdin.flush()
        answer = float(self.line())
        waited, threads = self.waited() - before, int(os.environ["THREADS"])
        self.wait = waited / ((time.monotonic() - began) * threads)
        if threads == 1:    # the probe's is a rate, the others' a time
            answer *= (1 / (1 - self.wait) if self.name == "cpu_probe"
                       else 1 - self.wait)
        time.sleep(PAUSE_S)
        return answer

    def close(self):
        self.p.stdin.close()
        self.p.wait()


class Cell:
    """What is measured: a prompt in chunks, or so many sequences together."""

    def __init__(self, rows, chunk=PROMPT):
        self.rows, self.chunk = rows, chunk
        self.steps = 4

    def name(self):
        if self.rows:
            return "decode %d" % self.rows
        return "prefill %d" % PROMPT + (
            "" if self.chunk == PROMPT else " by %d" % self.chunk)

    def tokens(self):
        return self.rows * self.steps if self.rows else PROMPT

    def run(self, program):
        """Tokens a second."""
        if self.rows:
            us = program.ask("decode", self.rows, BEGIN, self.steps)
        else:
            us = program.ask("prefill", PROMPT, self.chunk)
        return self.tokens() * 1e6 / us

    def fit(self, program, seconds):
        """Makes it last about that long."""
        if self.rows:
            rate = self.run(program)
            self.steps = max(2, min(STEPS_MAX,
                                    round(rate * seconds / self.rows)))

    def bound(self, facts, probe, kind):
        """Tokens a second at most, of what was probed."""
        fp32, peak = probe["fp32"] * 1e9, probe[kind] * 1e9
        if self.rows:
            seen = self.rows * (BEGIN + (self.steps + 1) / 2)
            tokens, outs, n = self.rows, self.rows, 1
        else:
            seen = PROMPT * (PROMPT + 1) / 2
            tokens, outs, n = PROMPT, 1, PROMPT / self.chunk
        kept = seen if self.rows else PROMPT
        reads = (n * facts["weights"] + kept * facts["kv"]) / (
            probe["read"] * 1e9)
        macs = (tokens * facts["macs"] + outs * facts["head"]) / peak
        return tokens / max(reads, macs + seen * facts["seen"] / fp32)


def quartiles(values):
    if len(values) == 1:
        return values[0], values[0], values[0]
    return tuple(statistics.quantiles(values, n=4, method="inclusive"))


def facts_of(ready):
    words = ready.split()
    facts = {k: int(v) for k, v in zip(words[1:15:2], words[2:16:2])}
    facts["device"] = " ".join(words[15:])
    return facts


def instruction(kind, probe, mixed):
    """Whose peak bounds products with weights of this type."""
    if kind == "F16":
        return "fp32"
    if kind == "BF16":
        return "bf16" if probe["bf16"] > 0 else "fp32"
    return "int8" if kind == "Q8_0" or mixed else "int4"


class Bench:
    def __init__(self, build, mode, shape, kind, path):
        (self.pairs, self.slices, self.again, self.seconds, modes,
         self.ubatches, self.tries) = SETTINGS[mode]
        self.pairs = int(os.environ.get("PAIRS") or self.pairs)
        self.slices = int(os.environ.get("SLICES") or self.slices)
        self.shape, self.kind = shape, kind
        threads = os.environ["THREADS"]
        self.ours = Program("cpu", build + "/bench/cpu", path, threads)
        self.facts = facts_of(self.ours.ready)
        self.theirs = {m: Program("cpu_peer", build + "/peer/bin/cpu_peer",
                                  path, threads, m) for m in modes}
        self.probe = Program("cpu_probe", build + "/bench/cpu_probe",
                             PROBE_MIB, threads)
        peak = {k: self.probe.ask(k, 100)
                for k in ("fp32", "bf16", "int8", "int4")}
        # rows that are no multiple of 256 cannot be Q4_K: others take its place
        self.peak = instruction(kind, peak, kind == "Q4_K_M"
                                and shape == "0.5b")

    def close(self):
        for p in (self.ours, self.probe, *self.theirs.values()):
            p.close()

    def best(self, cell):
        """Their best way for it: (program, words)."""
        rates = {}
        for mode, program in self.theirs.items():
            for flash in (0, 1):
                for ubatch in self.ubatches if not cell.rows else (512,):
                    program.ask("use", flash, ubatch)
                    if cell.rows:
                        cell.run(program)   # memory of its own, once
                    rates[mode, flash, ubatch] = max(
                        cell.run(program) for _ in range(self.tries))
        mode, flash, ubatch = max(rates, key=rates.get)
        self.theirs[mode].ask("use", flash, ubatch)
        return self.theirs[mode], "%s%s%s" % (
            "flash" if flash else "plain",
            "" if cell.rows else " %d" % ubatch,
            "" if mode == 3 else " as in the file")

    def probed(self):
        ms = 200 if self.pairs > 1 else 100
        return {k: self.probe.ask(k, ms)
                for k in {"read", "fp32", self.peak}}

    def pair(self, cell, program):
        """(ours, theirs, what the more disturbed of them waited)."""
        best = None
        for _ in range(self.again):
            ours, wait = cell.run(self.ours), self.ours.wait
            theirs = cell.run(program)
            wait = max(wait, program.wait)
            if best is None or wait < best[2]:
                best = ours, theirs, wait
            if wait < QUIET or os.environ["THREADS"] == "1":
                break
        return best

    def measure(self, cell):
        cell.fit(self.ours, self.seconds / 4)
        program, way = self.best(cell)
        cell.fit(self.ours, self.seconds)
        pairs, probes = [], []
        for _ in range(self.slices if cell.rows == 1 else self.pairs):
            pairs.append(self.pair(cell, program))
            probes.append(self.probed())
        top = {k: quartiles([p[k] for p in probes])[2] for k in probes[0]}
        bound = cell.bound(self.facts, top, self.peak)
        return self.row(cell, pairs, bound, way)

    def row(self, cell, pairs, bound, way):
        ours, theirs, waits = zip(*pairs)
        low, mid, high = quartiles([a / b for a, b, _ in pairs])
        reached = quartiles(ours)[2] / bound
        if cell.rows == 1:
            target = ALONE
            met = mid >= target and reached >= REACHED
        else:
            target = TARGETS[self.kind][1 if cell.rows else 0]
            met = mid >= target or reached >= REACHED
        return {"shape": self.shape, "type": self.kind, "what": cell.name(),
                "ours": statistics.median(ours),
                "theirs": statistics.median(theirs), "ratio": mid,
                "low": low, "high": high, "bound": bound,
                "reached": reached, "target": target, "met": met, "way": way,
                "wait": statistics.median(waits)}


# --- cost ---------------------------------------------------------------------

COST_ROWS = (1, 2, 4, 8, 16, 32, 64)
COST_TURNS = 3
PART = 0.005        # of a step's time: ops of less are one line


def ops_of(program):
    """(name, us, bytes, macs) of each op, us the largest first."""
    program.p.stdin.write("ops\n")
    program.p.stdin.flush()
    words = program.line().split()
    return sorted(((words[i], *map(float, words[i + 1:i + 4]))
                   for i in range(0, len(words), 4)), key=lambda o: -o[1])


def growth(programs, probes, kind, facts):
    """Tokens a second by sequences and threads: the best of the turns."""
    print("%-12s" % "tokens/s" + "".join(
        "%9d %5s" % (t, "%") for t in programs) + "  threads, % of bound")
    for cell in [*map(Cell, COST_ROWS), Cell(0)]:
        text = "%-12s" % cell.name()
        for threads, program in programs.items():
            cell.fit(program, 0.25)
            rate = max(cell.run(program) for _ in range(COST_TURNS))
            bound = cell.bound(facts, probes[threads], kind)
            text += "%9.1f %5.0f" % (rate, 100 * rate / bound)
        print(text, flush=True)


def by_op(program, probe, kind, cell):
    cell.fit(program, 0.5)
    ops_of(program)
    cell.run(program)
    ops = ops_of(program)
    total = sum(us for _, us, _, _ in ops)
    print("\n%-22s %6s %9s %8s %6s" % (cell.name(), "time", "GB/s", "GMAC/s",
                                       "bound"))
    rest = 0
    for name, us, size, macs in ops:
        if us < PART * total:
            rest += us
            continue
        peak = probe["fp32" if name.startswith("attn") else kind]
        least = max(size / probe["read"], macs / peak) / 1e3
        print("%-22s %5.1f%%" % (name, 100 * us / total) + (
            " %9.1f %8.1f %5.0f%%" % (size / us / 1e3, macs / us / 1e3,
                                      100 * least / us) if least else ""))
    print("%-22s %5.1f%%" % ("the rest", 100 * rest / total), flush=True)


def cost(build, shape, kind, path):
    programs, probes, n = {}, {}, int(os.environ["THREADS"])
    for threads in sorted({1, n}):
        programs[threads] = Program("cpu", build + "/bench/cpu", path, threads)
        probe = Program("cpu_probe", build + "/bench/cpu_probe", PROBE_MIB,
                        threads)
        probes[threads] = {k: max(probe.ask(k, 300) for _ in range(COST_TURNS))
                           for k in ("read", "fp32", "bf16", "int8", "int4")}
        probe.close()
        print("%s %s: %d threads probed: " % (shape, kind, threads)
              + ", ".join("%s %.1f" % p for p in probes[threads].items())
              + " (GB/s, GMAC/s)")
    facts = facts_of(programs[n].ready)
    peak = instruction(kind, probes[n], kind == "Q4_K_M" and shape == "0.5b")
    growth(programs, probes, peak, facts)
    for cell in (Cell(1), Cell(8), Cell(32), Cell(0)):
        by_op(programs[n], probes[n], peak, cell)
    for p in programs.values():
        p.close()


# --- tables -------------------------------------------------------------------

HEAD = ("%-5s %-6s %-18s %8s %8s %6s %12s %8s %5s %6s %-6s %4s %s" % (
    "model", "type", "what", "ours", "theirs", "ratio", "quartiles", "bound",
    "%", "target", "", "wait", "theirs is"))


def line(r):
    return ("%-5s %-6s %-18s %8.1f %8.1f %6.2f %12s %8.1f %5.0f %6.2f %-6s "
            "%4.0f %s") % (
        r["shape"], r["type"], r["what"], r["ours"], r["theirs"], r["ratio"],
        "%.2f-%.2f" % (r["low"], r["high"]), r["bound"], 100 * r["reached"],
        r["target"], "met" if r["met"] else "MISSED", 100 * r["wait"],
        r["way"])


# --- a neighbour --------------------------------------------------------------

HALF = """
import time
while True:
    end = time.monotonic() + 0.005
    while time.monotonic() < end:
        pass
    time.sleep(0.005)
"""
KEPT = 2 / 3        # of the rate alone, at least
TURNS = 5


def neighbour(bench):
    """Decode of one stream while another process takes half of a CPU."""
    cell = Cell(1)
    cell.fit(bench.ours, bench.seconds)
    program, _ = bench.best(cell)
    first = os.environ["CPUS"].split(",")[0].split("-")[0]
    rates = {}
    for beside in (0, 1) * TURNS:
        other = subprocess.Popen(["taskset", "-c", first, sys.executable, "-c",
                                  HALF]) if beside else None
        for whose, p in (("ours", bench.ours), ("theirs", program)):
            rates.setdefault((whose, beside), []).append(cell.run(p))
        if other:
            other.kill()
            other.wait()
    kept = {whose: statistics.median(
        b / a for a, b in zip(rates[whose, 0], rates[whose, 1]))
            for whose in ("ours", "theirs")}
    print("decode 1 while another process takes half of a CPU: ours keeps "
          "%.0f %%, theirs %.0f %%; target %.0f %%, %s" % (
              100 * kept["ours"], 100 * kept["theirs"], 100 * KEPT,
              "met" if kept["ours"] >= KEPT else "MISSED"), flush=True)


def main():
    build, mode, shape, kind, path = sys.argv[1:6]
    if mode == "cost":
        return cost(build, shape, kind, path)
    bench = Bench(build, mode, shape, kind, path)
    print("%s %s: file %.0f MB, engine %.0f MB, loaded in %d ms, theirs in %s; "
          "%s" % (shape, kind, bench.facts["weights"] / 1e6,
                  bench.facts["used"] / 1e6, bench.facts["ms"],
                  bench.theirs[3].ready.split()[-1], bench.facts["device"]))
    print(HEAD, flush=True)
    cells = [Cell(0), *map(Cell, ROWS)]
    if mode == "steps":
        cells.insert(1, Cell(0, 128))
    for cell in cells:
        r = bench.measure(cell)
        print(line(r), flush=True)
        if os.environ.get("JSON"):
            with open(os.environ["JSON"], "a") as f:
                f.write(json.dumps(r) + "\n")
    if mode == "steps":
        neighbour(bench)
    bench.close()


if __name__ == "__main__":
    main()
