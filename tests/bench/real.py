#!/usr/bin/env python3
"""The measuring part of tests/bench/real.sh: real.py BUILD MODEL.

STEPS.  8 streams decode, a prompt of 4096 tokens arrives among them.  The log
of steps is `llm-top --steps`; looked at are those from the prompt's arrival to
its first token.  A step with decoding rows that takes more than 1.2 times
step_target is a miss.  On a machine where others work too a step is also as
long as the engine's threads wait for a core: the kernel counts that
(/proc/PID/task/*/schedstat, beside the steal time of the whole machine), and a
miss that is no longer than its waits make it is counted apart, as disturbed.
Both are printed; only the first fails.

PREFIX.  The same streams; a prompt begins like the one that was computed.  How
long its first token takes is computed from the log of the first prompt's
steps: us = a + b * tokens + c * pairs of positions, by least squares.

TEXTS.  The same prompts, greedy, with logprobs in all digits that the API
gives: alone with nothing else and no cache; at once; with the cache, cold and
warm; in chunks of several sizes, by tokens and by time; with a pool that is
too small for all, so that some are preempted.  All must be the same.
"""
import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

PORT = int(os.environ.get("PORT", "18470"))
STREAMS = 8
LONG = 4096
SHARED = (3072, 4032)
OVER = 1.2          # times the target: a miss
FIT = 1.3           # times what was computed: a first token that is too late
SLACK_S = 0.2       # and beyond that, for what lies around the steps
CONTEXT = 8192
WAIT_S = 1200       # for anything: the machine may be busy
SEEN_S = 0.03       # the log is so far behind its steps at most
failures = []


def fail(what):
    failures.append(what)
    print("FAILED: " + what, flush=True)


def percentile(values, p):
    v = sorted(values)
    return v[min(len(v) - 1, round(p / 100 * (len(v) - 1)))]


def wait_for(what, condition, timeout=WAIT_S):
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("timed out: " + what)
        time.sleep(0.02)


# --- server -----------------------------------------------------------------

class Server:
    """nginx once, and one engine after another behind it."""

    def __init__(self, build, model):
        self.build, self.model = pathlib.Path(build).resolve(), model
        self.run = pathlib.Path(tempfile.mkdtemp(prefix="ngx_llm-real."))
        self.run.chmod(0o755)
        self.socket = self.run / "engine.sock"
        self.engine = self.nginx = None

    def start_nginx(self):
        user = "user www-data;" if os.getuid() == 0 else ""
        paths = " ".join("%s_temp_path %s/%s;" % (p, self.run, p) for p in (
            "client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        conf = self.run / "nginx.conf"
        conf.write_text("""
            load_module %s/nginx/ngx_http_llm_module.so; %s daemon off;
            pid %s/nginx.pid; error_log %s/error.log; worker_processes 1;
            events { worker_connections 256; }
            http { access_log off; %s
                llm_engine main { server unix:%s; reconnect 20ms 50ms; }
                server { listen 127.0.0.1:%d; client_max_body_size 1m;
                    location /v1/ { llm_pass main; llm_first_token_timeout 20m;
                        llm_token_timeout 20m; llm_request_timeout 1h; }
                    location = /ready { llm_health ready; }
                    location = /status { llm_status json; } } }
            """ % (self.build, user, self.run, self.run, paths, self.socket,
                   PORT))
        self.nginx = subprocess.Popen(["/usr/sbin/nginx", "-e",
                                       str(self.run / "error.log"), "-p",
                                       str(self.run), "-c", str(conf)])

    def start(self, **options):
        self.stop()
        options.setdefault("context", CONTEXT)
        options.setdefault("step_target", 0)
        args = [str(self.build / "llm-engine"), "--listen", str(self.socket),
                "--model", self.model, "--model_name", "m", "--log_level",
                "warn", "--drain_timeout", "0"]
        if os.getuid() == 0:
            args.append("--socket_group=www-data")
        for name, value in options.items():
            args += ["--" + name, str(value)]
        with open(self.run / "engine.log", "ab") as log:
            self.engine = subprocess.Popen(args, stderr=log, stdout=log)
        wait_for("the engine", self.ready)

    def ready(self):
        if self.engine.poll() is not None or self.nginx.poll() is not None:
            raise SystemExit((self.run / "engine.log").read_text()[-2000:]
                             + (self.run / "error.log").read_text()[-2000:])
        try:
            return get("/ready")[0] == 200
        except OSError:
            return False

    def stop(self):
        if self.engine is not None:
            self.engine.terminate()
            self.engine.wait()
            self.engine = None

    def close(self, why):
        """What the two said is told if that may be why."""
        ended = self.engine is not None and self.engine.poll()
        self.stop()
        if self.nginx is not None:
            self.nginx.terminate()
            self.nginx.wait()
        for name in ("engine.log", "error.log") if why else ():
            print(name, "exit %s" % ended if ended else "")
            print("".join((self.run / name).read_text().splitlines(True)[-5:]))
        shutil.rmtree(self.run)


def get(path):
    c = http.client.HTTPConnection("127.0.0.1", PORT, timeout=WAIT_S)
    c.request("GET", path)
    r = c.getresponse()
    body = r.read()
    c.close()
    return r.status, body


# --- clients ----------------------------------------------------------------

class Stream(threading.Thread):
    """A streamed completion: when each token came, and all that was said."""

    def __init__(self, ids, tokens, logprobs=0):
        super().__init__(daemon=True)
        self.body = dict(model="m", prompt=ids, max_tokens=tokens, stream=True,
                         temperature=0, ignore_eos=True, logprobs=logprobs,
                         stream_options={"include_usage": True})
        self.times, self.said, self.usage = [], [], {}
        self.error = None
        self.conn = http.client.HTTPConnection("127.0.0.1", PORT,
                                               timeout=WAIT_S)
        self.left = False
        self.begun = time.monotonic()
        self.start()

    def run(self):
        try:
            self.conn.request("POST", "/v1/completions", json.dumps(self.body),
                              {"Content-Type": "application/json"})
            r = self.conn.getresponse()
            if r.status != 200:
                self.error = "%d %s" % (r.status, r.read()[:200])
                return
            for line in r:
                if line.startswith(b"data: {"):
                    self.take(json.loads(line[6:]), time.monotonic())
        except (OSError, http.client.HTTPException, ValueError,
                AttributeError) as e:
            self.error = None if self.left else repr(e)

    def take(self, event, when):
        self.usage = event.get("usage") or self.usage
        if "error" in event:
            self.error = str(event["error"])
        for choice in event.get("choices", []):
            logprobs = choice.get("logprobs") or {}
            n = len(logprobs.get("token_logprobs", []))
            self.times += [when] * n
            if n > 0:
                self.said.append((logprobs["tokens"],
                                  logprobs["token_logprobs"],
                                  logprobs.get("top_logprobs")))

    def first(self):
        return self.times[0] - self.begun

    def leave(self):
        self.left = True
        if self.conn.sock is not None:
            self.conn.sock.shutdown(2)
        self.join()

    def done(self):
        self.join(WAIT_S)
        if self.error is not None or self.is_alive():
            raise SystemExit("a request failed: %s" % self.error)
        return self

    def text(self):
        """Whatever events it came in."""
        out = []
        for tokens, logprobs, tops in self.said:
            out += zip(tokens, logprobs, tops or [None] * len(tokens))
        return out


class Prompts:
    """Ids that the tokenizer has, the same ones each time."""

    def __init__(self, model, seed):
        with open(os.path.join(model, "tokenizer.json"), "rb") as f:
            self.n = len(json.load(f)["model"]["vocab"])
        self.rng = random.Random(seed)

    def draw(self, n):
        return [self.rng.randrange(self.n) for _ in range(n)]


# --- what the engine and the kernel say -----------------------------------------

class Watch:
    """The log of steps, and how long the engine's threads waited for cores."""

    def __init__(self, server):
        self.steps = []     # (end, us, decoding, prefill)
        self.waits = []     # (when, s waited by all threads so far)
        self.pid = server.engine.pid
        self.over = False
        self.log = subprocess.Popen(
            [str(server.build / "llm-top"), "--steps", str(server.socket)],
            stdout=subprocess.PIPE, text=True)
        self.threads = [threading.Thread(target=t, daemon=True)
                        for t in (self.read, self.sample)]
        for t in self.threads:
            t.start()

    def read(self):
        for line in self.log.stdout:
            if line.startswith("#"):
                fail("the log of steps has a gap: " + line)
            else:
                end, us, decoding, prefill = line.split()
                self.steps.append((float(end), int(us), int(decoding),
                                   int(prefill)))

    def sample(self):
        while not self.over:
            waited = 0
            try:
                for task in pathlib.Path("/proc/%d/task" % self.pid).iterdir():
                    waited += int((task / "schedstat").read_text().split()[1])
            except (OSError, IndexError):
                return      # the engine has gone
            with open("/proc/stat") as f:
                stolen = int(f.readline().split()[8])
            self.waits.append((time.monotonic(), waited / 1e9
                               + stolen / os.sysconf("SC_CLK_TCK")))
            time.sleep(0.02)

    def close(self):
        self.over = True
        self.log.send_signal(signal.SIGTERM)
        for t in self.threads:
            t.join()

    def between(self, begin, end):
        return [s for s in self.steps if begin < s[0] <= end]

    def waited(self, begin, end):
        """Seconds, from the sample before begin to the one after end."""
        low = [w for t, w in self.waits if t <= begin]
        high = [w for t, w in self.waits if t >= end]
        return ((high or [self.waits[-1][1]])[0]
                - (low or [self.waits[0][1]])[-1])


# --- steps --------------------------------------------------------------------

class Run:
    """8 streams, and a long prompt among them."""

    def __init__(self, server, name, target_ms, prompts, **options):
        self.name, self.target_ms = name, target_ms
        server.start(**options)
        self.watch = Watch(server)
        self.streams = [Stream(prompts.draw(32 + i), CONTEXT - 100)
                        for i in range(STREAMS)]
        self.all_get_on(8)
        # what a server that has been running knows of its steps
        Stream(prompts.draw(384), 1).done()
        self.all_get_on(4)
        self.began = time.monotonic()
        self.ids = prompts.draw(LONG)
        self.long = Stream(self.ids, 2).done()
        self.all_get_on(2)
        self.first = self.long.times[0]
        self.steps = self.watch.between(self.began, self.first + SEEN_S)

    def all_get_on(self, n):
        want = [len(s.times) + n for s in self.streams]
        wait_for("streams", lambda: all(
            len(s.times) >= w or s.error for s, w in zip(self.streams, want)))
        for s in self.streams:
            if s.error:
                raise SystemExit("a stream failed: %s" % s.error)

    def gaps(self):
        return [b - a for s in self.streams
                for a, b in zip(s.times, s.times[1:])
                if b > self.began and a < self.first]

    def end(self):
        for s in self.streams:
            s.leave()
        self.watch.close()

    def misses(self):
        """Steps with decoding rows above OVER * target: (undisturbed,
        disturbed)."""
        limit = OVER * self.target_ms / 1e3
        own, others = [], []
        for end, us, decoding, _ in self.steps:
            if decoding == 0 or us / 1e6 <= limit:
                continue
            waited = self.watch.waited(end - us / 1e6, end)
            (others if us / 1e6 - waited <= limit else own).append(us / 1e3)
        return own, others

    def row(self):
        mixed = [us / 1e3 for _, us, decoding, _ in self.steps if decoding > 0]
        longest = max(us / 1e3 for _, us, _, _ in self.steps)
        gaps = [g * 1e3 for g in self.gaps()]
        own, others = self.misses() if self.target_ms else ([], [])
        print("%-22s %6d %7.0f %7.0f %8s %8s %7.0f %7.0f %8.0f %8.1f %7.1f" % (
            self.name, len(self.steps), statistics.median(mixed or [0]), longest,
            len(own) if self.target_ms else "-",
            len(others) if self.target_ms else "-", percentile(gaps, 50),
            percentile(gaps, 99), max(gaps), self.long.first(),
            self.watch.waited(self.began, self.first)), flush=True)
        if own:
            fail("%d steps with decoding rows took more than %.1f times the "
                 "target of %d ms, the longest %.0f ms" % (
                     len(own), OVER, self.target_ms, max(own)))


def decode_ms(run):
    """A step of all streams and nothing else."""
    return statistics.median(us / 1e3 for _, us, decoding, prefill
                             in run.watch.steps
                             if decoding == STREAMS and prefill == 0)


def stalls(server, prompts):
    fixed = Run(server, "budget 512", 0, prompts, batch_tokens=512)
    shared = prefix(fixed, prompts)
    fixed.end()
    decode = decode_ms(fixed)
    target = int(os.environ.get("TARGET", 0)) or -(-int(decode * 4) // 10) * 10
    print("\na decode step of %d rows: %.0f ms; target %d ms; load %s" % (
        STREAMS, decode, target, os.getloadavg()[0]))
    print("%d streams decode, a prompt of %d tokens arrives; ms, but for s\n"
          "%-22s %6s %7s %7s %8s %8s %7s %7s %8s %8s %7s" % (
              STREAMS, LONG, "", "steps", "p50", "longest", "> %.1f" % OVER,
              "by load", "gap p50", "p99", "max", "TTFT, s", "wait, s"))
    fixed.row()
    mine = Run(server, "step_target %dms" % target, target, prompts,
               batch_tokens=512, step_target="%dms" % target)
    mine.end()
    mine.row()
    other = Run(server, "prefill_first", 0, prompts, policy="prefill_first",
                batch_tokens=CONTEXT + 64)
    other.end()
    other.row()
    print("> %.1f: steps with decoding rows of more than that many times the "
          "target; by load:\nthose whose threads waited that long for a core; "
          "longest: no more than 16777 are told" % OVER)
    return shared


# --- prefix -------------------------------------------------------------------

def least_squares(rows, values):
    """Solves the normal equations of rows * x = values."""
    n = len(rows[0])
    a = [[sum(r[i] * r[j] for r in rows) for j in range(n)]
         + [sum(r[i] * v for r, v in zip(rows, values))] for i in range(n)]
    for i in range(n):
        pivot = max(range(i, n), key=lambda k: abs(a[k][i]))
        a[i], a[pivot] = a[pivot], a[i]
        for k in range(n):
            if k != i and a[i][i] != 0:
                f = a[k][i] / a[i][i]
                a[k] = [x - f * y for x, y in zip(a[k], a[i])]
    return [a[i][n] / a[i][i] for i in range(n)]


def terms(start, tokens):
    return [1, tokens / LONG, tokens * (start + tokens / 2) / LONG ** 2]


def prefix(run, prompts):
    """TTFT of prompts that begin like the long one: (shared, cached, s,
    computed s, s waited)."""
    rows, values, at = [], [], 0
    for _, us, _, prefill in run.steps:
        rows.append(terms(at, prefill))
        values.append(us / 1e6)
        at += prefill
    if at != LONG:
        fail("the log has %d tokens of the prompt's %d" % (at, LONG))
    decoding = [us / 1e6 for _, us, d, p in run.watch.steps
                if d == STREAMS and p == 0]
    rows += [terms(0, 0)] * len(decoding)
    values += decoding
    coef = least_squares(rows, values)

    def took(start, tokens):
        return sum(c * x for c, x in zip(coef, terms(start, tokens)))

    out = [(0, 0, run.long.first(), sum(
        took(a, min(512 - STREAMS, LONG - a))
        for a in range(0, LONG, 512 - STREAMS)),
            run.watch.waited(run.began, run.first))]
    for shared in SHARED:
        ids = run.ids[:shared] + prompts.draw(LONG - shared)
        s = Stream(ids, 1).done()
        cached = s.usage.get("prompt_tokens_details", {}).get("cached_tokens")
        computed = sum(took(a, min(512 - STREAMS, LONG - a))
                       for a in range(shared, LONG, 512 - STREAMS))
        # it comes in the middle of a step
        computed += took(0, 0) / 2
        waited = run.watch.waited(s.begun, s.times[0])
        out.append((shared, cached, s.first(), computed, waited))
    return out


def prefix_table(rows):
    print("\na prompt of %d tokens that begins like one before, budget 512, %d "
          "streams\n%8s %8s %9s %12s %8s" % (LONG, STREAMS, "shared", "cached",
                                             "TTFT, s", "computed, s",
                                             "wait, s"))
    for shared, cached, first, computed, waited in rows:
        print("%8d %8d %9.2f %12.2f %8.1f" % (shared, cached, first, computed,
                                              waited))
        if first - waited > FIT * computed + SLACK_S:
            fail("the first token took %.2f s, computed were %.2f" % (
                first, computed))
        if cached != shared:
            fail("%d tokens are shared, %s were cached" % (shared, cached))
    if rows[-1][2] > rows[0][2] / 4:
        fail("a shared prefix does not shorten the time to the first token")
    print("computed: by the steps of the first one, us = a + b tokens + c "
          "pairs", flush=True)


# --- texts --------------------------------------------------------------------

def together(prompts, tokens):
    return [s.done() for s in [Stream(p, tokens, 2) for p in prompts]]


def alone(prompts, tokens):
    return [Stream(p, tokens, 2).done() for p in prompts]


class Texts:
    def __init__(self):
        self.want = {}

    def check(self, name, key, streams):
        texts = [s.text() for s in streams]
        cached = sum(s.usage["prompt_tokens_details"]["cached_tokens"]
                     for s in streams)
        same = self.want.setdefault(key, texts) == texts
        print("  %-44s %5d tokens, %4d cached  %s" % (
            name, sum(map(len, texts)), cached, "same" if same else "DIFFER"),
            flush=True)
        if not same:
            fail("texts differ: " + name)
        return cached


def texts(server, prompts):
    whole = [prompts.draw(n) for n in (190, 203, 160, 177)]
    whole[3][:128] = whole[0][:128]     # two begin alike
    short = [prompts.draw(n) for n in (24, 31, 20, 28)]
    t = Texts()
    say = "  prompts of %d to %d tokens" % (min(map(len, whole)),
                                            max(map(len, whole)))

    print("\ngreedy texts and logprobs; the first of each kind is what the "
          "others must equal")
    server.start(prefix_cache="off")
    t.check("long prompts alone, no cache", "long", alone(whole, 16))
    t.check("at once, no cache", "long", together(whole, 16))
    t.check("short prompts alone, no cache", "short", alone(short, 72))

    server.start()
    t.check("at once, cache", "long", together(whole, 16))
    if t.check("again, cached", "long", together(whole, 16)) < 500:
        fail("the cache was not used")

    for budget in (16, 48, 176):
        server.start(batch_tokens=budget)
        t.check("at once, cache, batch_tokens %d" % budget, "long",
                together(whole, 16))
    server.start(step_target="1ms")
    t.check("at once, cache, chunks by step_target", "long",
            together(whole, 16))

    # 19 blocks of 16 tokens: not three of the four texts end in them; and
    # outputs are expected to be short, or all would not be let in
    block = 16 * token_bytes(server.model)
    server.start(context=128, kv_memory=19 * block, prefix_cache="off")
    together([[1, 2, 3]] * 12, 1)
    t.check("short prompts, at once, a pool for two", "short",
            together(short, 72))
    told = json.loads(get("/status")[1])
    n = preemptions(told)
    print("  %d preemptions" % n)
    if n == 0:
        fail("nobody was preempted")


def token_bytes(model):
    with open(os.path.join(model, "config.json")) as f:
        c = json.load(f)
    head = c["hidden_size"] // c["num_attention_heads"]
    return (c["num_hidden_layers"] * c["num_key_value_heads"] * head * 2 * 2)


def preemptions(status):
    """Wherever it stands in the document."""
    if isinstance(status, dict):
        return sum(v if k == "preemptions" else preemptions(v)
                   for k, v in status.items()
                   if isinstance(v, (dict, list, int)))
    if isinstance(status, list):
        return sum(map(preemptions, status))
    return 0


def main():
    build, model = sys.argv[1:3]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    server = Server(build, model)
    began = time.monotonic()
    try:
        server.start_nginx()
        prefix_table(stalls(server, Prompts(model, 5)))
        texts(server, Prompts(model, 6))
    except BaseException:
        server.close(True)
        raise
    server.close(False)
    print("\n%.0f s; load after: %.2f; %s" % (
        time.monotonic() - began, os.getloadavg()[0],
        "%d FAILED" % len(failures) if failures else "ok"))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
