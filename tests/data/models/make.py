"""Makes the golden checkpoints beside this file: for each architecture a tiny
one of seeded random weights, and what Hugging Face transformers computes with
it.

    python3 -m venv build/venv
    build/venv/bin/pip install -r tests/data/models/requirements.txt
    build/venv/bin/python tests/data/models/make.py [NAME ...]

A directory per row of MODELS holds

    config.json          as the makers of such models publish it
    model.safetensors    the weights, F32 or BF16, or experts in MXFP4
    model.gguf           the same as llama.cpp's converter would have them, for
                         some; keys and names come from its gguf package
    golden.bin           little-endian: u32 ids_n, positions_n, vocab;
                         u32 ids [ids_n], positions [positions_n];
                         f32 logits [positions_n, vocab]

The logits are those of one float32 forward pass over all ids, kept at the
positions where a window, a block or a partition of the cache begins or ends.

Weights are drawn so that nothing is trivial: matrices keep their input's size,
so attention is neither uniform nor one-hot; norms' weights, biases and sinks
are random.  Sizes are odd on purpose: a head is not hidden / heads, no
vocabulary is a multiple of 64, and one to eight queries share a key.
"""

import json
import pathlib
import shutil
import sys
import tempfile
import zlib

import gguf
import numpy
import safetensors.torch
import torch
import transformers
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

HERE = pathlib.Path(__file__).resolve().parent

IDS_N = 300
POSITIONS = [0, 1, 2, 15, 16, 17, 30, 31, 32, 33, 47, 48, 63, 64, 65, 127, 128,
             129, 255, 256, 257, 297, 298, 299]

# What every configuration has unless its row says otherwise.
COMMON = {
    "hidden_size": 72,
    "intermediate_size": 92,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "vocab_size": 307,
    "hidden_act": "silu",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}

MODELS = {
    "llama-llama3": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "head_dim": 20,
        "rope_scaling": {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
            "rope_type": "llama3",
        },
        "dtype": "bfloat16",
    },
    "llama-linear": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 14,
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
        "rope_scaling": {"type": "linear", "factor": 4.0},
    },
    "llama-yarn": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "head_dim": 24,
        "dtype": "bfloat16",
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 128,
        },
    },
    "mistral": {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "hidden_size": 64,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 20,
        "sliding_window": 33,
        "dtype": "bfloat16",
    },
    "qwen2": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "sliding_window": 64,
        "max_window_layers": 2,
        "dtype": "bfloat16",
    },
    "qwen3": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 18,
        "attention_bias": False,
        "rope_theta": 1000000,
        "use_sliding_window": False,
        "sliding_window": None,
        "dtype": "bfloat16",
    },
    # In the wording of transformers 5, with YaRN by hand.
    "qwen3-yarn": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "head_dim": 32,
        "num_hidden_layers": 2,
        "layer_types": ["full_attention", "full_attention"],
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 5000.0,
            "factor": 2.0,
            "original_max_position_embeddings": 256,
            "beta_fast": 16.0,
            "beta_slow": 2.0,
            "attention_factor": 1.25,
        },
        "dtype": "bfloat16",
    },
    "gemma2": {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": 4,
        "intermediate_size": 88,
        "head_dim": 22,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 2.5,
        "query_pre_attn_scalar": 22,
        "sliding_window": 32,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    },
    "gemma3": {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "num_hidden_layers": 4,
        "intermediate_size": 88,
        "head_dim": 26,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 19,
        "sliding_window": 47,
        "sliding_window_pattern": 3,
        "rope_theta": 1000000,
        "rope_local_base_freq": 10000,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    },
    # More than the original context: the long factors.
    "phi3-long": {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "original_max_position_embeddings": 128,
        "rope_scaling": {
            "type": "longrope",
            "short_factor": [1.0, 1.02, 1.1, 1.2, 1.4, 1.9],
            "long_factor": [1.0, 1.3, 2.1, 4.4, 8.9, 16.2],
        },
        "sliding_window": None,
        "pad_token_id": 0,
        "dtype": "bfloat16",
    },
    # Less than it: the short ones; a part of the head is rotated.
    "phi3-short": {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "partial_rotary_factor": 0.75,
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 1024,
        "rope_scaling": {
            "type": "longrope",
            "short_factor": [1.0, 1.02, 1.1, 1.2, 1.4, 1.9, 2.0, 2.5, 3.0],
            "long_factor": [1.0, 1.3, 2.1, 4.4, 8.9, 16.2, 17.0, 18.0, 19.5],
        },
        "sliding_window": 129,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "dtype": "bfloat16",
    },
    "smollm3": {
        "architectures": ["SmolLM3ForCausalLM"],
        "model_type": "smollm3",
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "hidden_size": 80,
        "num_hidden_layers": 4,
        "intermediate_size": 90,
        "no_rope_layers": [1, 1, 1, 0],
        "no_rope_layer_interval": 4,
        "use_sliding_window": False,
        "sliding_window": None,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "dtype": "bfloat16",
    },
    "granite": {
        "architectures": ["GraniteForCausalLM"],
        "model_type": "granite",
        "num_hidden_layers": 2,
        "attention_bias": False,
        "attention_multiplier": 0.19,
        "embedding_multiplier": 5.5,
        "logits_scaling": 3.0,
        "residual_multiplier": 0.31,
        "mlp_bias": False,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    },
    "olmo2": {
        "architectures": ["Olmo2ForCausalLM"],
        "model_type": "olmo2",
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "attention_bias": False,
        "rope_scaling": None,
        "rope_theta": 500000,
        "dtype": "bfloat16",
    },
    "mixtral": {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "hidden_size": 48,
        "intermediate_size": 36,
        "num_hidden_layers": 2,
        "head_dim": 20,
        "num_local_experts": 5,
        "num_experts_per_tok": 2,
        "sliding_window": None,
        "dtype": "bfloat16",
    },
    "qwen2-moe": {
        "architectures": ["Qwen2MoeForCausalLM"],
        "model_type": "qwen2_moe",
        "hidden_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "num_hidden_layers": 2,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "moe_intermediate_size": 20,
        "shared_expert_intermediate_size": 44,
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "norm_topk_prob": False,
        "use_sliding_window": False,
        "sliding_window": None,
        "dtype": "bfloat16",
    },
    "qwen3-moe": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "hidden_size": 48,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "num_hidden_layers": 2,
        "head_dim": 18,
        "attention_bias": False,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "moe_intermediate_size": 20,
        "num_experts": 9,
        "num_experts_per_tok": 3,
        "norm_topk_prob": True,
        "use_sliding_window": False,
        "sliding_window": None,
        "dtype": "bfloat16",
    },
    # The weights of a token's experts do not sum to 1.
    "qwen3-moe-plain": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "head_dim": 18,
        "attention_bias": False,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "moe_intermediate_size": 20,
        "num_experts": 7,
        "num_experts_per_tok": 4,
        "norm_topk_prob": False,
        "use_sliding_window": False,
        "sliding_window": None,
        "dtype": "bfloat16",
    },
    # The bound of the gates is one that many reach.
    "gpt-oss": {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "attention_bias": True,
        "experts_per_token": 3,
        "head_dim": 18,
        "initial_context_length": 128,
        "intermediate_size": 22,
        "layer_types": ["sliding_attention", "full_attention",
                        "sliding_attention"],
        "num_attention_heads": 8,
        "num_experts_per_tok": 3,
        "num_key_value_heads": 1,
        "num_local_experts": 5,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-5,
        "rope_scaling": {
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": 4.0,
            "original_max_position_embeddings": 128,
            "rope_type": "yarn",
            "truncate": False,
        },
        "rope_theta": 150000,
        "sliding_window": 33,
        "swiglu_limit": 1.5,
        "dtype": "bfloat16",
    },
    "gpt-oss-mxfp4": {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "attention_bias": True,
        "experts_per_token": 2,
        "head_dim": 20,
        "hidden_size": 64,
        "initial_context_length": 128,
        "intermediate_size": 96,
        "layer_types": ["sliding_attention", "full_attention"],
        "num_experts_per_tok": 2,
        "num_hidden_layers": 2,
        "num_local_experts": 7,
        "pad_token_id": 0,
        "quantization_config": {
            "modules_to_not_convert": [
                "model.layers.*.self_attn", "model.layers.*.mlp.router",
                "model.embed_tokens", "lm_head"],
            "quant_method": "mxfp4",
        },
        "rms_norm_eps": 1e-5,
        "rope_scaling": {
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": 4.0,
            "original_max_position_embeddings": 128,
            "rope_type": "yarn",
            "truncate": False,
        },
        "rope_theta": 150000,
        "sliding_window": 31,
        "swiglu_limit": 7.0,
        "dtype": "bfloat16",
    },
}


# Those with a GGUF twin: the architecture's name there.
GGUF = {
    "llama-llama3": gguf.MODEL_ARCH.LLAMA,
    "llama-yarn": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3": gguf.MODEL_ARCH.GEMMA3,
    "phi3-long": gguf.MODEL_ARCH.PHI3,
    "smollm3": gguf.MODEL_ARCH.SMOLLM3,
    "granite": gguf.MODEL_ARCH.GRANITE,
    "olmo2": gguf.MODEL_ARCH.OLMO2,
    "mixtral": gguf.MODEL_ARCH.LLAMA,
    "qwen2-moe": gguf.MODEL_ARCH.QWEN2MOE,
    "qwen3-moe": gguf.MODEL_ARCH.QWEN3MOE,
    "gpt-oss-mxfp4": gguf.MODEL_ARCH.GPT_OSS,
}

# Matrices that have their inputs as rows, in GPT-OSS.
ACROSS = (".experts.gate_up_proj", ".experts.down_proj")

# Whose rotary pairs are made neighbours there.
NEIGHBOURS = {gguf.MODEL_ARCH.LLAMA, gguf.MODEL_ARCH.SMOLLM3,
              gguf.MODEL_ARCH.GRANITE}


def draw(name, old, tied, gen, across):
    """A parameter's value, of old's shape."""
    noise = torch.randn(old.shape, generator=gen)
    if name.endswith("sinks"):
        return noise
    if "norm" in name:
        # around what it was made with: 1, or 0 where 1 is added to it
        return old.detach().mean().round() + 0.3 * noise
    if name.endswith("bias"):
        return 0.5 * noise
    if "embed_tokens" in name:
        return noise * (0.3 if tied else 1)
    if "lm_head" in name:
        return noise * 2 / old.shape[-1] ** 0.5
    if name.endswith(across):
        # their inputs are rows; a gate must reach its bound
        return noise * (4 if "gate" in name else 1.4) / old.shape[-2] ** 0.5
    return noise * 1.4 / old.shape[-1] ** 0.5


# What the codes of a nibble of MXFP4 are worth.
E2M1 = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6])


def mxfp4(t):
    """Experts' matrices [experts, in, out] as OpenAI publishes them: blocks
    [experts, out, in / 32, 16], two elements a byte, and their exponents."""
    rows = t.float().transpose(1, 2)
    parts = rows.reshape(*rows.shape[:2], -1, 32)
    exps = parts.abs().amax(-1).log2().floor() - 2
    codes = (parts / 2 ** exps[..., None])[..., None].sub(E2M1).abs().argmin(-1)
    blocks = (codes[..., ::2] | codes[..., 1::2] << 4).to(torch.uint8)
    return blocks, (exps + 127).to(torch.uint8)


def mxfp4_gguf(blocks, exps):
    """The same as GGUF has it: the exponent, then a block's first half in the
    low nibbles and its second one in the high ones."""
    codes = torch.stack([blocks & 15, blocks >> 4], -1).flatten(-2)
    rows = torch.cat([exps[..., None], codes[..., :16] | codes[..., 16:] << 4], -1)
    return rows.flatten(-2).numpy()


def gguf_gpt_oss(w, weights, names):
    """The tensors of a layer's experts, which are fused in weights."""
    kind = gguf.GGMLQuantizationType.MXFP4
    experts = {k: weights.pop(k) for k in list(weights) if ".experts." in k}
    for key, t in experts.items():
        head, tail = key.split(".experts.")
        name = names.get_name(f"{head}.experts.gate_proj")
        assert name.endswith("ffn_gate_exps")
        parts = [("down", slice(None))]
        if tail.startswith("gate_up"):
            parts = [("gate", slice(0, None, 2)), ("up", slice(1, None, 2))]
        for part, take in parts:
            at = name.replace("gate", part)
            if tail.endswith("_bias"):
                w.add_tensor(f"{at}.bias", t[:, take].float().contiguous().numpy())
            elif tail.endswith("_blocks"):
                exps = experts[key.replace("_blocks", "_scales")]
                packed = mxfp4_gguf(t[:, take], exps[:, take])
                got = gguf.quants.dequantize(packed, kind)
                want = E2M1[torch.stack([t & 15, t >> 4], -1).flatten(-2).long()]
                want = want * 2 ** (exps.float() - 127)[..., None]
                assert (got == want.flatten(-2)[:, take].numpy()).all()
                w.add_tensor(f"{at}.weight", packed, raw_dtype=kind)


def neighbours(rows, heads):
    """Rows of q or k: elements i and half + i of a head side by side."""
    split = rows.reshape(heads, 2, -1, *rows.shape[1:])
    return split.transpose(1, 2).reshape(rows.shape)


def llama3_factors(c, dim):
    """What each frequency is divided by, which GGUF has as a tensor."""
    r = c["rope_scaling"]
    freq = c["rope_theta"] ** -(torch.arange(0, dim, 2).double() / dim)
    turns = r["original_max_position_embeddings"] * freq / (2 * torch.pi)
    low, high = r["low_freq_factor"], r["high_freq_factor"]
    mix = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 / ((1 - mix) / r["factor"] + mix)).float()


def gguf_rope(w, c, dim):
    """Keys of the rotation; the tensors that belong to them."""
    r = c.get("rope_scaling") or {}
    kind = r.get("rope_type", r.get("type"))
    w.add_rope_freq_base(float(c["rope_theta"]))
    w.add_rope_dimension_count(dim)
    if kind == "llama3":
        return {"rope_freqs.weight": llama3_factors(c, dim)}
    if kind == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(r["factor"])
    if kind == "yarn":
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(r["factor"])
        w.add_rope_scaling_orig_ctx_len(r["original_max_position_embeddings"])
    if kind == "longrope":
        original = c["original_max_position_embeddings"]
        ratio = c["max_position_embeddings"] / original
        w.add_rope_scaling_orig_ctx_len(original)
        w.add_rope_scaling_attn_factors(
            float(numpy.sqrt(1 + numpy.log(ratio) / numpy.log(original))))
        return {f"rope_factors_{n}.weight": torch.tensor(r[f"{n}_factor"])
                for n in ("short", "long")}
    return {}


def gguf_keys(w, c, dim):
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_block_count(c["num_hidden_layers"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_key_length(dim)
    w.add_value_length(dim)
    w.add_vocab_size(c["vocab_size"])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    for key, add in (("num_experts", w.add_expert_count),
                     ("num_local_experts", w.add_expert_count),
                     ("num_experts_per_tok", w.add_expert_used_count),
                     ("moe_intermediate_size", w.add_expert_feed_forward_length),
                     ("shared_expert_intermediate_size",
                      w.add_expert_shared_feed_forward_length),
                     ("embedding_multiplier", w.add_embedding_scale),
                     ("residual_multiplier", w.add_residual_scale),
                     ("attention_multiplier", w.add_attention_scale),
                     ("logits_scaling", w.add_logit_scale),
                     ("attn_logit_softcapping", w.add_attn_logit_softcapping),
                     ("final_logit_softcapping", w.add_final_logit_softcapping)):
        if key in c:
            add(c[key])
    if c["model_type"] == "gpt_oss":
        w.add_expert_feed_forward_length(c["intermediate_size"])
    if c["model_type"] == "gemma3_text":
        w.add_attention_scale(c["query_pre_attn_scalar"] ** -0.5)
        w.add_sliding_window_pattern(c["sliding_window_pattern"])
    if c.get("sliding_window") and c.get("use_sliding_window", True):
        w.add_sliding_window(c["sliding_window"])


def make_gguf(out, arch, c):
    dim = c.get("head_dim", c["hidden_size"] // c["num_attention_heads"])
    w = gguf.GGUFWriter(out / "model.gguf", gguf.MODEL_ARCH_NAMES[arch])
    gguf_keys(w, c, dim)
    tensors = gguf_rope(w, c, dim)
    experts = {}
    names = gguf.get_tensor_name_map(arch, c["num_hidden_layers"])

    weights = safetensors.torch.load_file(out / "model.safetensors")
    if arch == gguf.MODEL_ARCH.GPT_OSS:
        gguf_gpt_oss(w, weights, names)

    for key, t in weights.items():
        t = t.float()
        if arch in NEIGHBOURS and "q_proj" in key:
            t = neighbours(t, c["num_attention_heads"])
        if arch in NEIGHBOURS and "k_proj" in key:
            t = neighbours(t, c["num_key_value_heads"])
        if "gemma" in c["model_type"] and "norm" in key:
            t = t + 1
        if key.endswith("shared_expert_gate.weight"):
            t = t.squeeze(0)
        if ".experts." in key:
            # one tensor for all experts of a layer
            head, tail = key.split(".experts.")
            number, tail = tail.split(".", 1)
            experts.setdefault(f"{head}.experts.{tail}", {})[int(number)] = t
        elif key.endswith("sinks"):
            tensors[names.get_name(key) + ".weight"] = t
        else:
            tensors[names.get_name(key, (".weight", ".bias"))] = t

    for key, parts in experts.items():
        tensors[names.get_name(key, (".weight",))] = torch.stack(
            [parts[i] for i in range(len(parts))])

    for key, t in sorted(tensors.items()):
        if t.dim() == 1:
            w.add_tensor(key, t.numpy())
            continue
        kind = gguf.GGMLQuantizationType.BF16
        w.add_tensor(key, gguf.quants.quantize(t.numpy(), kind), raw_dtype=kind)

    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def pack(model):
    """The weights to save, experts in MXFP4, and the model's changed to those
    values, as transformers takes them."""
    saved = {}
    for key, p in model.named_parameters():
        if not key.endswith(ACROSS):
            saved[key] = p.detach().to(torch.bfloat16)
            continue
        blocks, exps = mxfp4(p.detach())
        saved[f"{key}_blocks"], saved[f"{key}_scales"] = blocks, exps
        p.data.copy_(convert_moe_packed_tensors(
            blocks, exps, dtype=torch.float32).reshape(p.shape))
    return saved


def make(name):
    out = HERE / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    config = {**COMMON, **MODELS[name]}
    if "rope_parameters" in config:
        del config["rope_theta"]
    config = {k: config[k] for k in sorted(config)}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    gen = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.from_pretrained(out),
        attn_implementation="eager", dtype=torch.float32,
        experts_implementation="eager").eval()
    kept = getattr(torch, config.get("dtype", "float32"))

    with torch.no_grad():
        for key, p in sorted(model.named_parameters()):
            p.copy_(draw(key, p, config["tie_word_embeddings"], gen,
                         ACROSS if config["model_type"] == "gpt_oss" else ()
                         ).to(kept).float())
        packed = pack(model) if "quantization_config" in config else None
        ids = torch.randint(3, config["vocab_size"], (1, IDS_N), generator=gen)
        logits = model(ids, use_cache=False).logits[0]

    assert logits.dtype == torch.float32 and bool(logits.isfinite().all())
    spread = logits.std(dim=-1).mean().item()
    model.to(kept)

    if packed is not None:
        safetensors.torch.save_file(packed, out / "model.safetensors")
    else:
        with tempfile.TemporaryDirectory() as tmp:
            model.save_pretrained(tmp)
            shutil.copy(pathlib.Path(tmp) / "model.safetensors", out)

    if name in GGUF:
        make_gguf(out, GGUF[name], config)

    with open(out / "golden.bin", "wb") as f:
        numpy.array([IDS_N, len(POSITIONS), logits.shape[1]], "<u4").tofile(f)
        ids[0].numpy().astype("<u4").tofile(f)
        numpy.array(POSITIONS, "<u4").tofile(f)
        logits[POSITIONS].numpy().astype("<f4").tofile(f)

    size = sum(p.stat().st_size for p in out.iterdir())
    print(f"{name}: {size >> 10} KiB, spread of the logits {spread:.2f}")


if __name__ == "__main__":
    for arg in sys.argv[1:] or MODELS:
        make(arg)
