"""export.py gguf RUN FILE    the trained weights as a GGUF (Q8_0; norms F32)
export.py hf FILE DIR      the same weights as a Hugging Face directory

The second reads the first's file, so both hold the same numbers: what Q8_0 left
of them, in F32.  In a GGUF of this architecture a head's rotary pairs lie side by
side, in a Hugging Face checkpoint half a head apart: permute() and its inverse.
"""
import json
import os
import sys

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, GGUFWriter, TokenType, quants

NAME = "ngx-llm-demo"
HERE = os.path.dirname(os.path.abspath(__file__))

# Hugging Face's name -> the file's
TOP = {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}
LAYER = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q",
         "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
TO_HF = {v: k for k, v in LAYER.items()}


def permute(w, heads, back=False):
    """[heads * dim, in]: halves to pairs, or back."""
    rows = w.shape[0] // heads
    shape = (heads, rows // 2, 2) if back else (heads, 2, rows // 2)
    return w.reshape(*shape, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def file_name(name):
    if name in TOP:
        return TOP[name]
    _, layer, rest = name.split(".", 2)
    return f"blk.{layer}.{LAYER[rest.removesuffix('.weight')]}.weight"


def put_vocab(out, path):
    with open(path, encoding="utf-8") as f:
        t = json.load(f)
    pieces = sorted(t["model"]["vocab"], key=t["model"]["vocab"].get)
    special = {a["content"] for a in t["added_tokens"]}
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("qwen2")
    out.add_token_list(pieces)
    out.add_token_types([TokenType.CONTROL if p in special else TokenType.NORMAL
                         for p in pieces])
    out.add_token_merges([m if isinstance(m, str) else " ".join(m)
                          for m in t["model"]["merges"]])
    out.add_eos_token_id(pieces.index("<|im_end|>"))
    out.add_pad_token_id(pieces.index("<|endoftext|>"))
    out.add_add_bos_token(False)
    with open(os.path.join(HERE, "chat_template.jinja"), encoding="ascii") as f:
        out.add_chat_template(f.read())


def to_gguf(run, path):
    import torch
    from model import Shape
    c = torch.load(os.path.join(run, "checkpoint.pt"), weights_only=True)
    s = Shape(layers=c["layers"])
    out = GGUFWriter(path, "llama")
    out.add_name(NAME)
    out.add_description("A small model that answers questions about ngx_llm")
    out.add_license("bsd-2-clause")
    out.add_vocab_size(s.vocab)
    out.add_context_length(s.context)
    out.add_embedding_length(s.hidden)
    out.add_block_count(s.layers)
    out.add_feed_forward_length(s.ffn)
    out.add_head_count(s.heads)
    out.add_head_count_kv(s.kv_heads)
    out.add_key_length(s.head_dim)
    out.add_value_length(s.head_dim)
    out.add_rope_dimension_count(s.head_dim)
    out.add_rope_freq_base(s.rope_base)
    out.add_layer_norm_rms_eps(s.eps)
    out.add_file_type(7)  # mostly Q8_0
    put_vocab(out, os.path.join(run, "tokenizer.json"))
    for name, w in c["model"].items():
        w = w.float().numpy()
        if "q_proj" in name:
            w = permute(w, s.heads)
        elif "k_proj" in name:
            w = permute(w, s.kv_heads)
        if w.ndim == 2:
            out.add_tensor(file_name(name), quants.quantize(w, Type.Q8_0), raw_dtype=Type.Q8_0)
        else:
            out.add_tensor(file_name(name), w)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def to_hf(path, to):
    from safetensors.numpy import save_file
    from vocab import from_gguf
    g = GGUFReader(path)
    key = lambda k: g.fields["llama." + k].contents()
    heads, kv_heads = key("attention.head_count"), key("attention.head_count_kv")
    weights = {}
    for t in g.tensors:
        w = quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        parts = t.name.removesuffix(".weight").split(".")
        if parts[0] != "blk":
            name = next(k for k, v in TOP.items() if v == t.name)
            weights["model." + name] = w
            continue
        if parts[2] == "attn_q":
            w = permute(w, heads, back=True)
        elif parts[2] == "attn_k":
            w = permute(w, kv_heads, back=True)
        weights[f"model.layers.{parts[1]}.{TO_HF[parts[2]]}.weight"] = np.ascontiguousarray(w)
    os.makedirs(to, exist_ok=True)
    save_file(weights, os.path.join(to, "model.safetensors"), {"format": "pt"})
    tokenizer = from_gguf(g)
    tokenizer.save(os.path.join(to, "tokenizer.json"))
    token = lambda k: g.fields[f"tokenizer.ggml.{k}_token_id"].contents()
    eos, pad = token("eos"), token("padding")
    template = g.fields["tokenizer.chat_template"].contents()
    files = {
        "config.json": {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama",
            "vocab_size": tokenizer.get_vocab_size(), "hidden_size": key("embedding_length"),
            "intermediate_size": key("feed_forward_length"),
            "num_hidden_layers": key("block_count"), "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "head_dim": key("attention.key_length"),
            "hidden_act": "silu", "max_position_embeddings": key("context_length"),
            "rms_norm_eps": round(key("attention.layer_norm_rms_epsilon"), 10),
            "rope_theta": key("rope.freq_base"), "tie_word_embeddings": True,
            "attention_bias": False, "mlp_bias": False, "torch_dtype": "float32",
            "bos_token_id": None, "eos_token_id": eos, "pad_token_id": pad},
        "generation_config.json": {"eos_token_id": [eos, pad], "pad_token_id": pad},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": key("context_length"),
            "eos_token": tokenizer.id_to_token(eos), "pad_token": tokenizer.id_to_token(pad),
            "clean_up_tokenization_spaces": False, "add_bos_token": False,
            "chat_template": template},
        "special_tokens_map.json": {"eos_token": tokenizer.id_to_token(eos),
                                    "pad_token": tokenizer.id_to_token(pad)}}
    for name, value in files.items():
        with open(os.path.join(to, name), "w", encoding="utf-8") as f:
            json.dump(value, f, indent=2)
            f.write("\n")
    with open(os.path.join(to, "chat_template.jinja"), "w", encoding="utf-8") as f:
        f.write(template)


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("gguf", "hf"):
        sys.exit(__doc__)
    (to_gguf if sys.argv[1] == "gguf" else to_hf)(sys.argv[2], sys.argv[3])
