#!/usr/bin/env python3
"""Seeds of the fuzz target load: load_seeds.py DATA OUT.

Small models of the tree, whole and in shards, and real tokenizers and chat
templates beside a model that has no more than embeddings for them; each as the
list of files that tests/fuzz/load.c takes.
"""
import json
import os
import struct
import sys

NAMES = ["config.json", "generation_config.json", "tokenizer.json",
         "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
         "chat_template.jinja", "additional_chat_templates/tool_use.jinja",
         "model.safetensors", "model.safetensors.index.json", "a.safetensors",
         "b.safetensors", "added_tokens.json", "m-00001-of-00002.gguf",
         "m-00002-of-00002.gguf"]


def read(*path):
    with open(os.path.join(*path), "rb") as f:
        return f.read()


def read_safetensors(raw):
    n = struct.unpack_from("<Q", raw)[0]
    header = json.loads(raw[8:8 + n])
    header.pop("__metadata__", None)
    return {k: (v["dtype"], v["shape"], raw[8 + n:][slice(*v["data_offsets"])])
            for k, v in header.items()}


def safetensors(tensors):
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape,
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + data


def in_two(raw):
    tensors = list(read_safetensors(raw).items())
    halves = tensors[:len(tensors) // 2], tensors[len(tensors) // 2:]
    index = {"metadata": {"total_size": 1}, "weight_map": {
        name: file for file, half in zip(NAMES[10:12], halves)
        for name, _ in half}}
    return {NAMES[9]: json.dumps(index).encode(),
            NAMES[10]: safetensors(dict(halves[0])),
            NAMES[11]: safetensors(dict(halves[1]))}


def carrier(vocab):
    layer = "model.layers.0."
    square = ["self_attn.%s_proj" % x for x in "qkvo"]
    square += ["mlp.%s_proj" % x for x in ("gate", "up", "down")]
    tensors = {"model.embed_tokens.weight":
               ("BF16", [vocab, 8], b"<" * 16 * vocab)}
    for name in ("model.norm", layer + "input_layernorm",
                 layer + "post_attention_layernorm"):
        tensors[name + ".weight"] = ("BF16", [8], b"<" * 16)
    for name in square:
        tensors[layer + name + ".weight"] = ("BF16", [8, 8], b"<" * 128)
    config = {"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 8,
              "intermediate_size": 8, "max_position_embeddings": 64,
              "num_attention_heads": 2, "num_key_value_heads": 2,
              "tie_word_embeddings": True, "vocab_size": vocab}
    return {NAMES[0]: json.dumps(config).encode(),
            NAMES[8]: safetensors(tensors)}


def value(raw, at, kind):
    """Where the value of that kind at raw[at] ends."""
    if kind == 8:
        return at + 8 + struct.unpack_from("<Q", raw, at)[0]
    if kind == 9:
        kind, n = struct.unpack_from("<IQ", raw, at)
        at += 12
        for _ in range(n):
            at = value(raw, at, kind)
        return at
    return at + (1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8)[kind]


def gguf_in_two(raw):
    count, pairs = struct.unpack_from("<QQ", raw, 8)
    at = 24
    for _ in range(pairs):
        at += 8 + struct.unpack_from("<Q", raw, at)[0]
        at = value(raw, at + 4, struct.unpack_from("<I", raw, at)[0])
    keys, infos = raw[24:at], []
    for _ in range(count):
        begin = at
        at += 8 + struct.unpack_from("<Q", raw, at)[0]
        at += 8 + 8 * struct.unpack_from("<I", raw, at)[0]
        infos.append((raw[begin:at], struct.unpack_from("<Q", raw, at)[0]))
        at += 8
    data = raw[(at + 31) // 32 * 32:]
    edges = sorted(offset for _, offset in infos) + [len(data)]
    out = {}
    for no, half in enumerate((infos[:count // 2], infos[count // 2:])):
        head, body = b"", b""
        for info, offset in half:
            head += info + struct.pack("<Q", len(body))
            body += data[offset:edges[edges.index(offset) + 1]]
        for key, kind, v in (("no", 2, struct.pack("<H", no)),
                             ("count", 2, struct.pack("<H", 2)),
                             ("tensors.count", 5, struct.pack("<i", count))):
            name = ("split." + key).encode()
            head = (struct.pack("<Q", len(name)) + name
                    + struct.pack("<I", kind) + v) + head
        head = raw[:8] + struct.pack("<QQ", len(half),
                                     3 + (0 if no else pairs)) \
            + (b"" if no else keys) + head
        out[NAMES[13 + no]] = head + b"\0" * (-len(head) % 32) + body
    return out


def main(data, out):
    def write(name, files):
        raw = b"".join(struct.pack("<BI", NAMES.index(n), len(f)) + f
                       for n, f in files.items())
        with open(os.path.join(out, name), "wb") as f:
            f.write(raw)

    for name in ("qwen2", "gemma3", "phi3-long", "qwen3-moe"):
        dir = os.path.join("tests/data/models", name)
        config = {NAMES[0]: read(dir, NAMES[0])}
        write(name, {**config, **in_two(read(dir, NAMES[8]))})
        write(name + "-gguf", gguf_in_two(read(dir, "model.gguf")))

    stories = os.path.join(data, "models/stories260K")
    tiny = os.path.join(data, "models/TinyStories-656K")
    templates = os.path.join(data, "chat-templates")
    if os.path.exists(tiny):
        write("tiny", {**carrier(2048),
                       **{n: read(tiny, n) for n in NAMES[1:3] + NAMES[4:6]}})
    if os.path.exists(stories) and os.path.exists(templates):
        tok = {**carrier(512), NAMES[3]: read(stories, "tok512.model")}
        for name in ("llama-2-chat", "Qwen-Qwen3-0.6B", "phi-3"):
            text = read(templates, name + ".jinja")
            write(name, {**tok, NAMES[6]: text, NAMES[7]: text})


main(*sys.argv[1:])
