#!/usr/bin/env python3
"""The part of tests/bench/cpu.sh that looks at whole servers:

    cpu_server.py BUILD SHAPE TYPE FILE

The engine behind nginx with TLS and llama-server without have the same file
loaded, at equal context and slots, and take turns under the load generator
(load.py, $LLM_LOAD): ours, theirs, ours, theirs.  Streams are closed loops,
each request a prompt of 128 tokens and 64 tokens of output; no two prompts are
the same.  Figures are medians of the turns, but worst gaps the worst of all.

SLOTS.  llama-server gets as many as there are streams, at least 8, of 1024
tokens each; the engine the same room for keys and values, which it gives out
by blocks.  Memory is what the kernel counts as resident when the turns are
over, for llama-server with the pages of the file that it has mapped.

STALL.  8 streams decode and a prompt of 4096 tokens arrives after 3 seconds:
the gaps of the 8 while it is computed.  Both as they are by default; ours
without a target for a step's time, theirs with small batches.
"""
import http.client
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

PORT = int(os.environ.get("PORT", "18530"))     # and the two behind it
LEVELS = tuple(map(int, os.environ.get("LEVELS", "1 8 16 32").split()))
SLOTS_LEAST = 8
TURNS = int(os.environ.get("TURNS", "2"))
SLOT = 1024         # tokens
PROMPT, OUTPUT = 128, 64
LONG = 4096
LONG_SLOT = 4608    # where there is the long prompt
WAIT_S = 600
LOAD = os.environ.get("LLM_LOAD") or str(
    pathlib.Path(os.environ.get("LLM_DATA", "../shared/data"))
    / "../bench/load.py")


def answers(port, path):
    try:
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        c.request("GET", path)
        return c.getresponse().status == 200
    except OSError:
        return False


class Server:
    """One of the two, started; ready_s is how long that took."""

    def __init__(self, args, log, port, path):
        began = time.monotonic()
        with open(log, "ab") as f:
            self.p = subprocess.Popen(
                ["taskset", "-c", os.environ["CPUS"], *map(str, args)],
                stdout=f, stderr=f)
        while not answers(port, path):
            if self.p.poll() is not None or \
                    time.monotonic() > began + WAIT_S:
                raise SystemExit(pathlib.Path(log).read_text()[-2000:])
            time.sleep(0.02)
        self.ready_s = time.monotonic() - began

    def resident(self):
        """MB of the process."""
        with open("/proc/%d/status" % self.p.pid) as f:
            for line in f:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024 / 1e6
        return 0

    def stop(self):
        self.p.terminate()
        self.p.wait()


class Place:
    """A directory for both, and the nginx in it."""

    def __init__(self, build, file, block):
        self.build, self.file = pathlib.Path(build).resolve(), file
        self.block = block
        self.run = pathlib.Path(tempfile.mkdtemp(prefix="ngx_llm-cpu."))
        self.run.chmod(0o755)
        self.log = self.run / "log"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048",
                        "-nodes", "-days", "2", "-subj", "/CN=localhost",
                        "-keyout", self.run / "key", "-out",
                        self.run / "crt"], check=True, capture_output=True)
        self.write_conf()
        self.nginx = subprocess.Popen(
            ["taskset", "-c", os.environ["CPUS"], "/usr/sbin/nginx", "-e",
             str(self.log), "-p", str(self.run), "-c",
             str(self.run / "nginx.conf")])

    def write_conf(self):
        user = "user www-data;" if os.getuid() == 0 else ""
        paths = " ".join("%s_temp_path %s/%s;" % (p, self.run, p) for p in (
            "client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (self.run / "nginx.conf").write_text("""
            load_module %s/nginx/ngx_http_llm_module.so; %s daemon off;
            pid %s/pid; error_log %s; worker_processes 1;
            events { worker_connections 256; }
            http { access_log off; %s
                llm_engine main { server unix:%s/sock; reconnect 20ms 50ms; }
                server { listen 127.0.0.1:%d; listen 127.0.0.1:%d ssl;
                    ssl_certificate %s/crt; ssl_certificate_key %s/key;
                    client_max_body_size 1m;
                    location /v1/ { llm_pass main; llm_first_token_timeout 20m;
                        llm_token_timeout 20m; llm_request_timeout 1h; }
                    location = /metrics { llm_status prometheus; }
                    location = /ready { llm_health ready; } } }
            """ % (self.build, user, self.run, self.log, paths, self.run,
                   PORT, PORT + 1, self.run, self.run))

    def ours(self, slots, slot, **options):
        args = [self.build / "llm-engine", "--listen", self.run / "sock",
                "--model", self.file, "--model_name", "m", "--log_level",
                "warn", "--drain_timeout", "0", "--threads",
                os.environ["THREADS"], "--context", slot, "--kv_memory",
                slots * slot * self.block]
        if os.getuid() == 0:
            args.append("--socket_group=www-data")
        for name, value in options.items():
            args += ["--" + name, value]
        return Server(args, self.log, PORT, "/ready")

    def theirs(self, slots, slot, *options):
        return Server(
            [self.build / "peer/bin/llama-server", "-m", self.file, "-np",
             slots, "-c", slots * slot, "-t", os.environ["THREADS"],
             "--host", "127.0.0.1", "--port", PORT + 2, *options],
            self.log, PORT + 2, "/health")

    def close(self):
        self.nginx.terminate()
        self.nginx.wait()
        shutil.rmtree(self.run)


def load(whose, *args):
    """What the load generator says of a server."""
    url = ("https://127.0.0.1:%d" % (PORT + 1) if whose == "ours" else
           "http://127.0.0.1:%d" % (PORT + 2))
    out = subprocess.run(
        [sys.executable, LOAD, "--url", url, "--insecure", "--ignore-eos",
         "--timeout", "1200", "--model", "m", *map(str, args)], capture_output=True, text=True)
    if out.returncode != 0:
        raise SystemExit(out.stdout[-500:] + out.stderr[-500:])
    r = json.loads(out.stdout)
    if r["requests_failed"]:
        raise SystemExit("%s: %s" % (whose, r["errors"]))
    return r


def median(values):
    return statistics.median(values)


# --- levels -------------------------------------------------------------------

LEVEL_HEAD = "%-7s %-7s %9s %6s %9s %9s %8s %8s %9s %8s %7s" % (
    "streams", "whose", "tokens/s", "ratio", "TTFT p50", "p99", "ITL p50",
    "p99", "max, ms", "RSS, MB", "ready,s")


def level_row(streams, whose, rs, ratio, server):
    print("%-7d %-7s %9.1f %6s %9.0f %9.0f %8.1f %8.1f %9.0f %8.0f %7.2f" % (
        streams, whose, median([r["output_tok_per_s"] for r in rs]), ratio,
        1e3 * median([r["ttft_s"]["p50"] for r in rs]),
        1e3 * median([r["ttft_s"]["p99"] for r in rs]),
        1e3 * median([r["itl_s"]["p50"] for r in rs]),
        1e3 * median([r["itl_s"]["p99"] for r in rs]),
        1e3 * max(r["itl_s"]["max"] for r in rs),
        server.resident(), server.ready_s), flush=True)


def level(servers, streams, seed):
    turns = {"ours": [], "theirs": []}
    for k in range(TURNS):
        for whose in turns:
            turns[whose].append(load(
                whose, "--concurrency", streams, "--requests",
                max(4, 2 * streams), "--prompt-tokens", PROMPT,
                "--max-tokens", OUTPUT, "--warmup", 1, "--prompt-seed",
                seed + k))
    ratio = median([a["output_tok_per_s"] / b["output_tok_per_s"]
                    for a, b in zip(turns["ours"], turns["theirs"])])
    level_row(streams, "ours", turns["ours"], "%.2f" % ratio, servers["ours"])
    level_row(streams, "theirs", turns["theirs"], "", servers["theirs"])


def levels(place):
    print(LEVEL_HEAD)
    had, servers, seed = 0, {}, 1
    for streams in LEVELS:
        slots = max(streams, SLOTS_LEAST)
        if slots != had:
            for s in servers.values():
                s.stop()
            servers = {"ours": place.ours(slots, SLOT),
                       "theirs": place.theirs(slots, SLOT)}
            had = slots
        level(servers, streams, seed)
        seed += TURNS
    for s in servers.values():
        s.stop()


# --- stall --------------------------------------------------------------------

def stall(place):
    print("\na prompt of %d tokens among 8 streams: %s" % (
        LONG, "ITL of the 8 meanwhile, ms; its own TTFT, s"))
    print("%-24s %8s %8s %9s %8s" % ("", "p50", "p99", "worst", "TTFT"))
    for whose, name, options in (
            ("ours", "default: 250 ms", {}),
            ("ours", "step_target 0", {"step_target": "0"}),
            ("theirs", "batch 2048, 512", ()),
            ("theirs", "batch 128, 128", ("-b", 128, "-ub", 128))):
        if whose == "ours":
            server = place.ours(9, LONG_SLOT, **options)
        else:
            server = place.theirs(9, LONG_SLOT, *options)
        r = load(whose, "--concurrency", 8, "--requests", 8,
                 "--prompt-tokens", 32, "--max-tokens", 250, "--stall-tokens",
                 LONG, "--stall-after", 3, "--stall-max-tokens", 2,
                 "--warmup", 1)["stall"]
        gaps = r["others_itl_s"]
        print("%-24s %26s %8.1f" % (whose + ", " + name, (
            "%8.0f %8.0f %9.0f" % (
                1e3 * gaps["p50"], 1e3 * gaps["p99"],
                1e3 * max(r["others_worst_gap_s"])) if gaps
            else "they had ended"), max(r["long_ttft_s"])), flush=True)
        server.stop()


def block_bytes(build, file):
    """Of keys and values of a token."""
    out = subprocess.run([build + "/llm-engine", "--inspect", file],
                         capture_output=True, text=True, check=True).stdout
    for text in out.splitlines():
        if text.startswith("kv block"):     # kv block  16 tokens, ..., N bytes
            words = text.replace(",", "").split()
            return int(words[words.index("bytes") - 1]) // int(words[2])
    raise SystemExit("llm-engine --inspect says nothing of blocks")


def main():
    build, shape, kind, file = sys.argv[1:5]
    place = Place(build, file, block_bytes(build, file))
    print("%s %s: whole servers, %d tokens to read and %d to write a request" %
          (shape, kind, PROMPT, OUTPUT))
    try:
        levels(place)
        stall(place)
    finally:
        place.close()


if __name__ == "__main__":
    main()
