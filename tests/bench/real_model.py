#!/usr/bin/env python3
"""Makes a model of Qwen2.5-0.5B's shape with random weights, for
tests/bench/real.sh: what it says is nonsense, what it costs is not.

    tests/bench/real_model.py DIRECTORY [real|small]

Writes config.json and model.safetensors (F16, with which the CPU computes
fastest), and a tokenizer: Qwen's own out of $LLM_DATA (../shared/data) where
that is there, else one whose pieces are single bytes.  `small` is a shape that
computes in a hundredth of the time, to try the bench itself with.  A directory
that is complete is left as it is.  Standard library only; seeded, so it is the
same model each time.

WEIGHTS.  A value of a matrix has a random sign and a random mantissa, so a
mask over random bytes makes it: |w| is even between a and 2 a, which gives a
deviation of 1.53 a.  a is a power of two; the deviation that a layer wants is
met within a factor of 1.42.  A layer adds about as much to the residual as an
input of size one asks for, and a query's scores have a deviation of about 3:
a token attends to some, neither to all nor to one.  The embedding is small
beside what layers add, or the tied head would say each token again.  So the
next token depends on everything before it, and a wrong bit shows.
"""
import json
import math
import os
import pathlib
import random
import shutil
import struct
import sys
import time

# hidden, layers, heads, of keys and values, feed-forward
SHAPES = {"real": (896, 24, 14, 2, 4864), "small": (256, 4, 4, 2, 512)}
VOCAB = 151936
CONTEXT = 32768
CHUNK = 1 << 19     # values drawn at a time
EMBEDDING = 0.03    # deviation of its values
LOGITS = 3.0        # and of the logits
SCORES = 3.0        # and of what a query and a key make
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def tensors(hidden, layers, heads, kv_heads, ffn):
    """(name, shape, deviation) of each matrix and bias; (name, shape, value)
    of each norm, which is constant."""
    head = hidden // heads
    flat = 1 / math.sqrt(hidden)
    looks = math.sqrt(SCORES / math.sqrt(head)) * flat
    yield "model.embed_tokens.weight", (VOCAB, hidden), EMBEDDING
    for i in range(layers):
        p = "model.layers.%d." % i
        for name, n, k, dev in (("q", heads * head, hidden, looks),
                                ("k", kv_heads * head, hidden, looks),
                                ("v", kv_heads * head, hidden, flat),
                                ("o", hidden, heads * head, flat)):
            yield p + "self_attn.%s_proj.weight" % name, (n, k), dev
            if name != "o":
                yield p + "self_attn.%s_proj.bias" % name, (n,), 0.1
        for name, n, k in (("gate", ffn, hidden), ("up", ffn, hidden),
                           ("down", hidden, ffn)):
            yield p + "mlp.%s_proj.weight" % name, (n, k), 1 / math.sqrt(k)
        yield p + "input_layernorm.weight", (hidden,), 1
        yield p + "post_attention_layernorm.weight", (hidden,), 1
    yield ("model.norm.weight", (hidden,),
           LOGITS / (EMBEDDING * math.sqrt(hidden)))


def mask(n, value):
    """n times the 16 bits of value, as a number."""
    return int.from_bytes(struct.pack("<H", value) * n, "little")


def drawn(rng, n, deviation):
    """n random F16 values: see WEIGHTS."""
    exponent = 15 + round(math.log2(deviation / math.sqrt(7 / 3)))
    assert 0 < exponent < 31
    while n > 0:
        k = min(n, CHUNK)
        bits = int.from_bytes(rng.randbytes(2 * k), "little")
        bits = bits & mask(k, 0x83ff) | mask(k, exponent << 10)
        yield bits.to_bytes(2 * k, "little")
        n -= k


def write_weights(path, shape):
    rng = random.Random(20)
    header, at = {}, 0
    for name, dims, _ in tensors(*shape):
        end = at + 2 * math.prod(dims)
        header[name] = {"dtype": "F16", "shape": list(dims),
                        "data_offsets": [at, end]}
        at = end
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head)
        for name, dims, value in tensors(*shape):
            if "norm" in name:
                f.write(struct.pack("<e", value) * math.prod(dims))
            else:
                f.writelines(drawn(rng, math.prod(dims), value))
    return at


def write_config(path, hidden, layers, heads, kv_heads, ffn):
    path.write_text(json.dumps({
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2",
        "dtype": "float16", "hidden_size": hidden,
        "intermediate_size": ffn, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0, "vocab_size": VOCAB, "hidden_act": "silu",
        "tie_word_embeddings": True, "use_sliding_window": False,
        "sliding_window": CONTEXT, "max_window_layers": layers,
        "eos_token_id": 151645}, indent=2) + "\n")


def write_bytes_tokenizer(directory):
    """Byte-level BPE without a merge: a byte is a piece."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    names = {b: chr(b) for b in plain}
    names.update({b: chr(256 + i) for i, b in enumerate(rest)})
    byte_level = {"type": "ByteLevel", "add_prefix_space": False,
                  "trim_offsets": False, "use_regex": False}
    (directory / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [], "normalizer": None, "post_processor": None,
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": "", "end_of_word_suffix": "",
                  "fuse_unk": False, "byte_fallback": False, "merges": [],
                  "vocab": {names[b]: b for b in range(256)}}}))
    (directory / "tokenizer_config.json").write_text("{}\n")


def main():
    directory = pathlib.Path(sys.argv[1])
    shape = SHAPES[sys.argv[2] if len(sys.argv) > 2 else "real"]
    weights = directory / "model.safetensors"
    data = pathlib.Path(os.environ.get("LLM_DATA", "../shared/data"))
    theirs = data / "tokenizers" / "qwen3"
    began = time.monotonic()

    directory.mkdir(parents=True, exist_ok=True)
    if weights.exists():
        return
    write_config(directory / "config.json", *shape)
    if all((theirs / name).exists() for name in TOKENIZER):
        for name in TOKENIZER:
            shutil.copyfile(theirs / name, directory / name)
    else:
        write_bytes_tokenizer(directory)
    part = directory / "part"
    size = write_weights(part, shape)
    part.rename(weights)    # last: with it the directory is complete
    print("%s: %.0f million weights, %.0f MB, made in %.0f s" % (
        weights, size / 2e6, size / 1e6, time.monotonic() - began))


if __name__ == "__main__":
    main()
