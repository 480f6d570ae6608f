"""grammar_peers.py BUILD DATA: one table of grammars, ours beside others'.

Each engine gets the same schemas as text and the same instances as token ids
(what the tokenizer makes of json.dumps), one schema after another: compile,
then for each instance a mask, the bit of the next token, the token; at the end
a mask once more, and whether the text may end there.  An instance is refused
at the first token that has no bit.

Times are processor time: of this thread for a mask, of the process for what is
compiled, so that a helper thread is not for nothing.  A peer's time has the call
from Python in it, 1 to 2 us (the column "least" shows it).  What an engine
computes at the first visit of a state and keeps counts where it falls.

Schemas that all engines compile are compared, and of those the masks of the
valid instances that all accept.  What each makes of all schemas that it
compiles itself stands below.
"""
import json
import os
import subprocess
import sys
import time

import llguidance
import numpy as np
import torch
import xgrammar
from tokenizers import Tokenizer


def cases(data, every):
    """[{name, schema, tests: [(valid, ids)]}] of the maskbench."""
    where = os.path.join(data, "structured-output/maskbench")
    tokenizer = Tokenizer.from_file(
        os.path.join(data, "tokenizers/qwen3/tokenizer.json"))
    out = []
    for name in sorted(os.listdir(where))[::every]:
        with open(os.path.join(where, name), encoding="utf-8") as f:
            case = json.load(f)
        tests = [(t["valid"], tokenizer.encode(
            json.dumps(t["data"], ensure_ascii=False),
            add_special_tokens=False).ids) for t in case["tests"]]
        out.append({"name": name, "schema": json.dumps(case["schema"]),
                    "tests": tests})
    return out


class Result:
    """Of one schema: error, or compile_us, memory, tests."""

    def __init__(self, compile_us, error=None, memory=None):
        self.compile_us, self.error, self.memory = compile_us, error, memory
        self.tests = []  # (accepted, [us of each mask])


def walk(ids, mask, allowed, take, ends):
    """(accepted, times): mask() is timed, the others look at what it made."""
    times = []
    for token in [*ids, None]:
        start = time.thread_time_ns()
        mask()
        times.append((time.thread_time_ns() - start) / 1e3)
        if token is None:
            return ends(), times
        if not allowed(token) or not take(token):
            return False, times


class Ours:
    name = "ngx_llm"

    def __init__(self, build, data):
        self.build, self.data = build, data

    def run(self, all_cases):
        path = os.path.join(self.build, "grammar_peers.jsonl")
        with open(path, "w", encoding="utf-8") as f:
            for case in all_cases:
                f.write(json.dumps({"schema": case["schema"], "tests": [
                    ids for _, ids in case["tests"]]}) + "\n")
        lines = subprocess.run(
            [os.path.join(self.build, "bench/grammar"),
             os.path.join(self.data, "tokenizers/qwen3"), path],
            check=True, capture_output=True, text=True).stdout.splitlines()
        assert len(lines) == len(all_cases)
        for line in map(json.loads, lines):
            r = Result(line["compile_us"], line["error"], line["memory"])
            r.tests = [(t["ends"], t["masks_us"]) for t in line["tests"]]
            yield r


class Peer:
    def __init__(self, vocab):
        self.bits = torch.full((1, (vocab + 31) // 32), -1, dtype=torch.int32)
        self.words = self.bits.numpy()[0].view(np.uint32)

    def allowed(self, token):
        return bool(self.words[token // 32] >> np.uint32(token % 32) & 1)

    def run(self, all_cases):
        for case in all_cases:
            start = time.process_time_ns()
            grammar, error = None, None
            try:
                grammar = self.compile(case["schema"])
            except Exception as e:
                error = str(e) or type(e).__name__
            r = Result((time.process_time_ns() - start) / 1e3, error)
            if grammar is not None:
                for _, ids in case["tests"]:
                    r.tests.append(self.test(grammar, ids))
                r.memory = self.memory(grammar)
            yield r

    def memory(self, grammar):
        return None


class Xgrammar(Peer):
    def __init__(self, tokens, end, strict):
        super().__init__(len(tokens))
        self.name = "xgrammar" if strict else "xgrammar, strict_mode off"
        self.end, self.strict = end, strict
        self.compiler = xgrammar.GrammarCompiler(
            xgrammar.TokenizerInfo(tokens, xgrammar.VocabType.BYTE_LEVEL,
                                   stop_token_ids=[end]), max_threads=1)

    def compile(self, schema):
        return self.compiler.compile_json_schema(schema, strict_mode=self.strict)

    def memory(self, grammar):
        return getattr(grammar, "memory_size_bytes", None)

    def test(self, grammar, ids):
        m = xgrammar.GrammarMatcher(grammar)
        return walk(ids, lambda: m.fill_next_token_bitmask(self.bits),
                    self.allowed, m.accept_token,
                    lambda: self.allowed(self.end))


class Llguidance(Peer):
    name = "llguidance"

    def __init__(self, path, vocab, end):
        super().__init__(vocab)
        self.end = end
        self.tokenizer = llguidance.LLTokenizer(path, n_vocab=vocab,
                                                eos_token=end)
        self.where = self.bits.data_ptr(), self.bits.numel() * 4

    def compile(self, schema):
        m = llguidance.LLMatcher(
            self.tokenizer, llguidance.LLMatcher.grammar_from_json_schema(schema),
            log_level=0)
        if m.is_error():
            raise ValueError(m.get_error())
        return m

    def test(self, m, ids):
        """The states that one instance has met are there for the next."""
        if m.is_error():
            return False, []
        m.reset()
        return walk(ids, lambda: m.unsafe_compute_mask_ptr(*self.where),
                    self.allowed, m.consume_token, lambda: self.allowed(self.end))


def quantile(values, q):
    return sorted(values)[min(len(values) - 1, int(len(values) * q))] \
        if values else float("nan")


HEAD = "%-26s %16s %16s %16s %9s %9s %9s %7s %7s %7s %9s %9s %9s" % (
    "", "schemas compiled", "valid refused", "invalid accepted", "compile", "p99",
    "max, us", "least", "p50", "p99", "p99.9", "max, us", "KiB each")


def line(name, all_cases, results, chosen, common):
    """chosen: indices of schemas; common(i, t): is test t's time taken?"""
    valid = refused = invalid = accepted = 0
    masks = []
    for i in chosen:
        for t, ((good, _), (taken, times)) in enumerate(
                zip(all_cases[i]["tests"], results[i].tests)):
            valid += good
            invalid += not good
            refused += good and not taken
            accepted += taken and not good
            if good and common(i, t):
                masks += times
    compiled = [results[i].compile_us for i in chosen]
    memory = [results[i].memory for i in chosen if results[i].memory]
    return ("%-26s %16s %16s %16s %9.0f %9.0f %9.0f %7.1f %7.1f %7.1f %9.1f "
            "%9.0f %9s" % (
                name, "%d of %d" % (sum(r.error is None for r in results),
                                    len(results)),
                "%d of %d" % (refused, valid),
                "%d of %d" % (accepted, invalid), quantile(compiled, 0.5),
                quantile(compiled, 0.99), max(compiled, default=float("nan")),
                min(masks, default=float("nan")), quantile(masks, 0.5),
                quantile(masks, 0.99), quantile(masks, 0.999),
                max(masks, default=float("nan")),
                "%.0f" % (sum(memory) / len(memory) / 1024) if memory else "-"))


def main():
    build, data = sys.argv[1:3]
    all_cases = cases(data, int(os.environ.get("EVERY") or 1))
    path = os.path.join(data, "tokenizers/qwen3/tokenizer.json")
    vocab = Tokenizer.from_file(path).get_vocab(with_added_tokens=True)
    tokens = [""] * (max(vocab.values()) + 1)
    for token, i in vocab.items():
        tokens[i] = token
    end = vocab["<|im_end|>"]
    torch.set_num_threads(1)

    engines = {"ngx_llm": lambda: Ours(build, data),
               "xgrammar": lambda: Xgrammar(tokens, end, True),
               "loose": lambda: Xgrammar(tokens, end, False),
               "llguidance": lambda: Llguidance(path, len(tokens), end)}
    results = {}
    for which in (os.environ.get("ENGINES") or " ".join(engines)).split():
        start = time.process_time()
        engine = engines[which]()
        opened = time.process_time() - start
        results[engine.name] = list(engine.run(all_cases))
        print("%s: vocabulary of %d in %.2f s, all in %.1f s" % (
            engine.name, len(tokens), opened, time.process_time() - start),
            file=sys.stderr)
        del engine

    everyone = [i for i in range(len(all_cases))
                if all(r[i].error is None for r in results.values())]
    print("vocabulary of %d tokens; %d schemas, of which all compile %d" % (
        len(tokens), len(all_cases), len(everyone)))
    print(HEAD)
    for name, r in results.items():
        print(line(name, all_cases, r, everyone, lambda i, t: all(
            q[i].tests[t][0] for q in results.values())))
    print("\neach by the schemas that it compiles itself")
    print(HEAD)
    for name, r in results.items():
        print(line(name, all_cases, r, [i for i in range(len(all_cases))
                                        if r[i].error is None],
                   lambda i, t: True))


if __name__ == "__main__":
    main()
