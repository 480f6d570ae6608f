"""golden.py HF_DIR GOLDEN VECTORS: what transformers and tokenizers make of the model.

GOLDEN has logits and greedy continuations in float64, and conversations with
their ids by the template; VECTORS has strings with their ids.  Where
greedy_margins (first minus second logit) is below a test's tolerance, another
token may follow.
"""
import json
import random
import sys
import unicodedata

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lessons import conversation

PROMPTS = ["Once upon a time", "One day", "The fox and the owl", "{\"name\": \"Ada\",", "1, 2, 3, 4,"]
CHATS = [
    [("user", "What are you?")],
    [("user", "Where are the metrics?")],
    [("user", "What is 27 + 48?")],
    [("user", "Sort: pear, apple, fig")],
    [("user", "Tell me a short story.")],
    [("user", "Give me a person as JSON.")],
    [("system", "You are called Robo."), ("user", "What is your name?")],
    [("user", "My name is Ada."), ("assistant", "Nice to meet you, Ada!"),
     ("user", "What is my name?")],
    [("user", "Spell garden."), ("assistant", "g-a-r-d-e-n"), ("user", "And count to 7.")],
]
# what a byte-level tokenizer can get wrong
STRINGS = ["", " ", "  ", "   a", "\t", "\n", "\n\n", " \n \n", "a\nb", "Hello world", "Hello  world",
           "HELLO", "don't we'll I'M", "x1y22z333", "1234567890", "3.14", "$llm_prompt_tokens",
           "/v1/chat/completions", "{\"a\": [1, 2]}", "--kv_type f16", "na\u00efve caf\u00e9",
           "\u00fcber \u4e16\u754c \U0001f600", "e\u0301", "\u200b\u00a0\u2028", "<|im_end|>",
           "a<|im_start|>b", "==== \u2014 \u2026", "tab\tand  spaces ", "\u0660\u0661\u0662"]


def greedy(model, ids, n, stop=()):
    out, margins = [], []
    logits = []
    for _ in range(n):
        with torch.no_grad():
            last = model(torch.tensor([ids + out])).logits[0, -1]
        logits.append(last)
        top = last.topk(2)
        margins.append(round((top.values[0] - top.values[1]).item(), 5))
        out.append(top.indices[0].item())
        if out[-1] in stop:
            break
    return logits[0], out, margins


def main(hf, golden, vectors):
    tokenizer = AutoTokenizer.from_pretrained(hf)
    model = AutoModelForCausalLM.from_pretrained(hf, dtype=torch.float64).eval()
    stop = (tokenizer.eos_token_id, tokenizer.pad_token_id)
    rounded = lambda values: [round(v, 5) for v in values]
    cases = []
    for prompt in PROMPTS:
        ids = tokenizer.encode(prompt, add_special_tokens=False)
        first, out, margins = greedy(model, ids, 32)
        cases.append({"prompt": prompt, "prompt_ids": ids, "logits_last": rounded(first.tolist()),
                      "greedy_ids": out, "greedy_margins": margins,
                      "greedy_text": tokenizer.decode(out)})
    chats = []
    for chat in CHATS:
        messages = [{"role": r, "content": c} for r, c in chat]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = tokenizer.encode(text, add_special_tokens=False)
        _, out, margins = greedy(model, ids, 200, stop)
        chats.append({"messages": messages, "prompt_ids": ids, "stopped": out[-1] in stop,
                      "margin": min(margins),
                      "reply": tokenizer.decode(out, skip_special_tokens=True)})
    text = "".join(t for i in range(3) for t, _ in conversation(i, "golden"))
    ids = tokenizer.encode(text, add_special_tokens=False)[:250]
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    nll = [logprobs[i, ids[i + 1]].item() for i in range(len(ids) - 1)]
    note = "float64 evaluation by transformers over what Q8_0 left of the weights"
    with open(golden, "w") as f:
        json.dump({"model": "ngx-llm-demo", "note": note, "cases": cases, "chats": chats,
                   "nll": {"ids": ids, "token_logprobs": rounded(nll)}}, f)
        f.write("\n")
    rng = random.Random(5)
    strings = STRINGS + ["".join(t for t, _ in conversation(i, "vectors")) for i in range(20)]
    for _ in range(100):
        strings.append("".join(chr(rng.choice([rng.randrange(32, 127), rng.randrange(0xa0, 0x250),
                                               32, 10, rng.randrange(0x3040, 0x30ff)]))
                               for _ in range(rng.randrange(1, 40))))
    with open(vectors, "w") as f:
        for s in strings:
            # the tokenizer's own special pieces are text here, as in a user's message
            ids = tokenizer.encode(s, add_special_tokens=False, split_special_tokens=True)
            decoded = unicodedata.normalize("NFC", s)
            f.write(json.dumps({"text": s, "ids": ids, "decoded": decoded}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
