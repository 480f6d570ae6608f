#!/usr/bin/env python3
"""Makes models with random weights for tests/bench/cpu.sh, as GGUF files that
the engine and llama.cpp both read.

    tests/bench/cpu_model.py FILE 1b|0.5b|small

1b is Llama-3.2-1B's shape, 0.5b Qwen2.5-0.5B's, small tries the bench itself.
Matrices are F16, and llama-quantize makes the other types of them.  Weights
are drawn as real_model.py says under WEIGHTS.  A file that is there is left as
it is.  Standard library only; seeded, so it is the same file each time.

VOCABULARY.  Of the shape's size: the bytes; the load generator's words, each
one piece with the space before it, as in the vocabularies that such models
have, by merges from left to right; names that no text ever holds; and two
tokens that begin and end a text.  Without the load generator ($LLM_LOAD) there
are no words, and a text is its bytes.
"""
import importlib.util
import math
import os
import pathlib
import random
import struct
import sys
import time

from real_model import EMBEDDING, LOGITS, SCORES, drawn

# family, tokenizer's words, hidden, layers, heads, of keys and values,
# feed-forward, vocabulary, base of the rotary angles, biases of q, k and v
SHAPES = {
    "1b": ("llama", "llama-bpe", 2048, 16, 32, 8, 8192, 128256, 500000.0, 0),
    "0.5b": ("qwen2", "qwen2", 896, 24, 14, 2, 4864, 151936, 1000000.0, 1),
    "small": ("llama", "llama-bpe", 512, 4, 8, 2, 1024, 32000, 500000.0, 0),
}
CONTEXT = 32768
ALIGN = 32
U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5     # types of values
NORMAL, CONTROL = 1, 3                                    # of tokens
OF_F32, OF_F16 = 0, 1                                     # of tensors


def tensors(shape):
    """(name, dims with the input's length first, deviation or None, value) of
    each: None is a vector of one value, F32, and so are biases, drawn."""
    _, _, hidden, layers, heads, kv_heads, ffn, vocab, _, biases = shape
    head = hidden // heads
    flat = 1 / math.sqrt(hidden)
    looks = math.sqrt(SCORES / math.sqrt(head)) * flat
    yield "token_embd.weight", (hidden, vocab), EMBEDDING, 0
    yield ("output_norm.weight", (hidden,), None,
           LOGITS / (EMBEDDING * math.sqrt(hidden)))
    for i in range(layers):
        p = "blk.%d." % i
        yield p + "attn_norm.weight", (hidden,), None, 1
        for name, n, dev in (("q", heads * head, looks),
                             ("k", kv_heads * head, looks),
                             ("v", kv_heads * head, flat)):
            yield p + "attn_%s.weight" % name, (hidden, n), dev, 0
            if biases:
                yield p + "attn_%s.bias" % name, (n,), 0.1, 0
        yield p + "attn_output.weight", (heads * head, hidden), flat, 0
        yield p + "ffn_norm.weight", (hidden,), None, 1
        yield p + "ffn_gate.weight", (hidden, ffn), flat, 0
        yield p + "ffn_up.weight", (hidden, ffn), flat, 0
        yield p + "ffn_down.weight", (ffn, hidden), 1 / math.sqrt(ffn), 0


# --- vocabulary -----------------------------------------------------------------

def byte_names():
    """What byte-level BPE writes for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    names = {b: chr(b) for b in plain}
    names.update({b: chr(256 + i) for i, b in enumerate(rest)})
    return [names[b] for b in range(256)]


def words():
    data = pathlib.Path(os.environ.get("LLM_DATA", "../shared/data"))
    path = pathlib.Path(os.environ.get("LLM_LOAD",
                                       data / "../bench/load.py"))
    if not path.exists():
        return []
    spec = importlib.util.spec_from_file_location("load", path)
    load = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(load)
    return load.WORDS


def vocabulary(size):
    """(pieces, merges): a word's beginnings are pieces too."""
    pieces, merges = byte_names(), []
    space = pieces[ord(" ")]
    known = set(pieces)
    for word in words():
        for i in range(len(word)):
            left, right = space + word[:i], word[i]
            if left + right not in known:
                known.add(left + right)
                pieces.append(left + right)
                merges.append(left + " " + right)
    while len(pieces) < size - 2:
        pieces.append("%sw%06d" % (space, len(pieces)))
    return pieces + ["<|begin|>", "<|end|>"], merges


# --- the file -------------------------------------------------------------------

def string(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def pair(key, kind, value):
    out = string(key) + struct.pack("<I", kind)
    if kind == STRING:
        return out + string(value)
    return out + struct.pack({U32: "<I", F32: "<f", BOOL: "<?"}[kind], value)


def strings(key, values):
    return (string(key) + struct.pack("<IIQ", ARRAY, STRING, len(values))
            + b"".join(map(string, values)))


def pairs(shape, name):
    (family, pre, hidden, layers, heads, kv_heads, ffn, vocab, base,
     _) = shape
    pieces, merges = vocabulary(vocab)
    types = [NORMAL] * (vocab - 2) + [CONTROL] * 2
    out = [
        pair("general.architecture", STRING, family),
        pair("general.name", STRING, name),
        pair("general.file_type", U32, OF_F16),
        pair("general.alignment", U32, ALIGN),
    ]
    for key, kind, value in (
            ("block_count", U32, layers), ("context_length", U32, CONTEXT),
            ("embedding_length", U32, hidden),
            ("feed_forward_length", U32, ffn),
            ("attention.head_count", U32, heads),
            ("attention.head_count_kv", U32, kv_heads),
            ("attention.layer_norm_rms_epsilon", F32, 1e-5),
            ("rope.dimension_count", U32, hidden // heads),
            ("rope.freq_base", F32, base), ("vocab_size", U32, vocab)):
        out.append(pair(family + "." + key, kind, value))
    out += [
        pair("tokenizer.ggml.model", STRING, "gpt2"),
        pair("tokenizer.ggml.pre", STRING, pre),
        strings("tokenizer.ggml.tokens", pieces),
        string("tokenizer.ggml.token_type")
        + struct.pack("<IIQ%di" % vocab, ARRAY, I32, vocab, *types),
        strings("tokenizer.ggml.merges", merges),
        pair("tokenizer.ggml.bos_token_id", U32, vocab - 2),
        pair("tokenizer.ggml.eos_token_id", U32, vocab - 1),
        pair("tokenizer.ggml.add_bos_token", BOOL, False),
    ]
    return out


def padded(n):
    return n + -n % ALIGN


def size_of(dims):
    return math.prod(dims) * (2 if len(dims) == 2 else 4)


def floats(rng, n, deviation, value):
    if deviation is None:
        return struct.pack("<f", value) * n
    return struct.pack("<%df" % n, *(rng.gauss(0, deviation)
                                     for _ in range(n)))


def write(path, shape, name):
    rng = random.Random(20)
    head, at, n = [], 0, 0
    for tensor, dims, _, _ in tensors(shape):
        head.append(string(tensor) + struct.pack(
            "<I%dQIQ" % len(dims), len(dims), *dims,
            OF_F16 if len(dims) == 2 else OF_F32, at))
        at += padded(size_of(dims))
        n += 1
    keys = pairs(shape, name)
    begin = b"GGUF" + struct.pack("<IQQ", 3, n, len(keys))
    begin += b"".join(keys) + b"".join(head)
    with open(path, "wb") as f:
        f.write(begin.ljust(padded(len(begin)), b"\0"))
        for _, dims, deviation, value in tensors(shape):
            if len(dims) == 2:
                f.writelines(drawn(rng, math.prod(dims), deviation))
            else:
                f.write(floats(rng, dims[0], deviation, value))
            f.write(b"\0" * (-f.tell() % ALIGN))
    return at


def main():
    path, name = pathlib.Path(sys.argv[1]), sys.argv[2]
    if path.exists():
        return
    began = time.monotonic()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    size = write(part, SHAPES[name], name)
    part.rename(path)       # last: what is there is whole
    print("%s: %.0f million weights, %.0f MB, made in %.0f s" % (
        path, size / 2e6, size / 1e6, time.monotonic() - began),
        file=sys.stderr)


if __name__ == "__main__":
    main()
