"""What PyTorch and transformers do with the same shapes on the same machine.

    peers.py gemm               TFLOP/s of its product of 8192^3 in BF16
    peers.py ops OURS           each row of OURS (row.h) that PyTorch has an op for
    peers.py streams OURS N...  transformers' continuous batching of N streams, an
                                8B Llama with random weights, beside OURS

TINY=1 does it on the CPU at sizes of no meaning, to try the script.  OURS may be
/dev/null: then there is only the peer's figure.  Rows, separated by tabs:

    row  ours_us  peer_us  ours_is_so_many_times_as_fast  peer

Numbers are BF16 on both sides; keys and values are 16 bits.  Each figure is the
median of some turns over weights or keys that together miss the caches.
"""

import os
import statistics
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # there is no network to wait for

TINY = bool(os.environ.get("TINY"))
UNTIL = float(os.environ.get("GPU_UNTIL") or 1e18)
CACHE = 192 << 20  # three times the second cache
PROMPT, OUTPUT = (8, 4) if TINY else (512, 128)  # as engine.c has them

try:
    import torch
    import torch.nn.functional as F
except ImportError as e:
    sys.exit(f"peers: no PyTorch here ({e})")

CUDA = torch.cuda.is_available() and not TINY
DEVICE = "cuda" if CUDA else "cpu"
if not CUDA and not TINY:
    sys.exit("peers: PyTorch sees no GPU")


def small(n, least=1):
    return max(n // 64, least) if TINY else n


def numbers(*shape):
    return torch.randn(*shape, device=DEVICE, dtype=torch.bfloat16) * 0.02


def times(run, calls, turns=20, seconds=0.5):
    """Median us of a call; run() does so many, as one graph where that can be."""
    for _ in range(1 if TINY else 3):
        run()
    if not CUDA:
        at = time.perf_counter()
        run()
        return (time.perf_counter() - at) / calls * 1e6

    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            run()
        run = graph.replay
        run()
    except Exception:  # an op that cannot be recorded is launched
        torch.cuda.synchronize()
    us, begin = [], time.time()
    while len(us) < turns and (len(us) < 5 or time.time() - begin < seconds):
        a, b = torch.cuda.Event(True), torch.cuda.Event(True)
        a.record()
        run()
        b.record()
        b.synchronize()
        us.append(a.elapsed_time(b) * 1e3 / calls)
    return statistics.median(us)


def copies(size):
    return 1 if TINY else min(64, CACHE // size + 1)


def gemm():
    n = small(8192)
    a, b = numbers(n, n), numbers(n, n)
    us = times(lambda: torch.matmul(a, b), 1)
    print(f"gemm\t{2 * n**3 / us / 1e6:.4g} TFLOP/s\tPyTorch {torch.__version__}")


# --- ops -------------------------------------------------------------------

PRODUCTS = {  # the names of kernels.c: outputs, inputs
    "matmul qkv": (6144, 4096),
    "matmul o": (4096, 4096),
    "gate-up": (2 * 14336, 4096),
    "matmul down": (4096, 14336),
    "matmul last": (128256, 4096),
}


def product(n, k, m):
    n, k = small(n), small(k)
    weights = [numbers(n, k) for _ in range(copies(2 * n * k))]
    x = numbers(m, k)
    return times(lambda: [F.linear(x, w) for w in weights], len(weights))


def attention(rows, queries, context, causal):
    heads, kv_heads, dim = (4, 1, 16) if TINY else (32, 8, 128)
    size = 4 * rows * context * kv_heads * dim
    kv = [[numbers(rows, kv_heads, context, dim) for _ in "kv"]
          for _ in range(2 if queries > 1 else copies(size))]
    q = numbers(rows, heads, queries, dim)

    def run():
        for k, v in kv:
            F.scaled_dot_product_attention(q, k, v, is_causal=causal,
                                           enable_gqa=True)

    return times(run, len(kv))


def op(name):
    """Us of the peer's op for a row's name, or None."""
    for kind, (n, k) in PRODUCTS.items():
        if name.startswith(kind + " M "):
            m = int(name.split()[-1])
            return product(n, k, small(m)), "F.linear"
    words = name.replace(",", "").split()
    if words[1:2] == ["attention"]:
        a, b = int(words[2]), int(words[3])
        if words[0] == "decode":
            return attention(small(a), 1, small(b), False), "SDPA, not paged"
        if b == 0:
            return attention(1, small(a), small(a), True), "SDPA, not paged"
    return None


def ours(path):
    """Rows of a file as row.h has them: name to us."""
    rows = {}
    with open(path) as f:
        for line in f:
            fields = line.rstrip("\n").split("\t")
            try:
                rows[fields[0]] = float(fields[1])
            except (IndexError, ValueError):
                pass
    return rows


def row(name, us, peer_us, peer):
    print(name, f"{us:.2f}" if us else "", f"{peer_us:.2f}",
          f"{peer_us / us:.2f}" if us else "", peer, sep="\t", flush=True)


def ops(path):
    rows = ours(path)
    for name in rows or ["matmul o M 1", "decode attention 8, 1024",
                         "prefill attention 512, 0"]:
        if time.time() + 5 > UNTIL:
            print(f"{name}\t\t\t\tskipped: no time left", flush=True)
            continue
        try:
            got = op(name)
        except Exception as e:
            print(f"{name}\t\t\t\tPyTorch: {type(e).__name__}: {e}"[:200],
                  flush=True)
            continue
        if got:
            row(name, rows.get(name), *got)
        if CUDA:
            torch.cuda.empty_cache()


# --- streams ---------------------------------------------------------------


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=small(128256, 300), hidden_size=small(4096),
        intermediate_size=small(14336), num_hidden_layers=small(32, 2),
        num_attention_heads=4 if TINY else 32,
        num_key_value_heads=2 if TINY else 8, head_dim=16 if TINY else 128,
        rope_theta=500000.0, max_position_embeddings=8192,
        tie_word_embeddings=False, bos_token_id=None, eos_token_id=None,
        pad_token_id=None)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(DEVICE):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return model.eval()


def prompts(model, n, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, model.config.vocab_size, (n, PROMPT),
                         generator=g).tolist()


def batch(manager, model, n, seed):
    """Seconds from the first prompt given to the last token had."""
    inputs = prompts(model, n, seed)
    begin = time.perf_counter()
    manager.add_requests(inputs, max_new_tokens=OUTPUT)
    tokens = done = 0
    while done < n:
        result = manager.get_result(timeout=1)
        if result is not None and result.is_finished():
            done += 1
            tokens += len(result.generated_tokens)
            if getattr(result, "error", None):
                raise RuntimeError(result.error)
        elif result is None and not manager.is_running():
            raise RuntimeError(getattr(manager, "error", None) or
                               "its thread has ended")
        if time.time() > UNTIL:
            raise RuntimeError("no time left")
    if tokens != n * OUTPUT:
        raise RuntimeError(f"{tokens} tokens, expected {n * OUTPUT}")
    return time.perf_counter() - begin


def streams(path, counts):
    try:
        import transformers
        from transformers import GenerationConfig

        name = f"transformers {transformers.__version__}"
        model = llama()
        enter = model.continuous_batching_context_manager
    except Exception as e:
        print(f"streams\t\t\t\tno continuous batching here: "
              f"{type(e).__name__}: {e}"[:200])
        return

    rows = ours(path)
    config = GenerationConfig(max_new_tokens=OUTPUT, do_sample=False,
                              eos_token_id=-1, pad_token_id=0)
    more = {}
    try:
        from transformers.generation.configuration_utils import (
            ContinuousBatchingConfig)

        # the rest of the memory is another's; each prompt is met once
        more["continuous_batching_config"] = ContinuousBatchingConfig(
            allow_block_sharing=False, **(
                dict(num_blocks=64, max_batch_tokens=64) if TINY
                else dict(max_memory_percent=0.6)))
    except (ImportError, TypeError) as e:
        print(f"streams\t\t\t\tdefaults, since {e}"[:200], flush=True)
    for attention in None, "paged|sdpa":  # its own choice may not be there
        try:
            if attention:
                model.set_attn_implementation(attention)
            with enter(generation_config=config, **more) as manager:
                how = f"{name}, {model.config._attn_implementation}"
                batch(manager, model, min(4, counts[-1]), 99)  # warm
                for i, n in enumerate(counts):
                    us = batch(manager, model, n, i) / (n * OUTPUT) * 1e6
                    label = f"{'tiny' if TINY else '8B'} streams {n}"
                    row(label, rows.get(label), us,
                        f"{how}: {1e6 / us:.1f} tokens/s")
            return
        except Exception as e:
            print(f"streams\t\t\t\tcontinuous batching: "
                  f"{type(e).__name__}: {e}"[:300], flush=True)


def main():
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    with torch.no_grad():  # inference_mode would not do for its thread
        if what == "gemm":
            gemm()
        elif what == "ops":
            ops(sys.argv[2])
        elif what == "streams":
            streams(sys.argv[2], [int(n) for n in sys.argv[3:]])
        else:
            sys.exit(__doc__)


main()
