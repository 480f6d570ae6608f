"""Makes the vocabulary beside this file, o200k, with the structure of GPT-OSS's
own: a tokenizer.json, the same as GGUF has it, and texts with the ids that
Hugging Face tokenizers gives for them.  In tests/data/models's virtual
environment:

    build/venv/bin/python tests/data/tokenizers/make.py

The merges are learned from random strings that are not cut into words, so that
they reach over every place where a word may end: a cut that is missed, or made
where there is none, gives other ids.
"""

import json
import pathlib
import random

import gguf
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).resolve().parent / "o200k"
VOCAB = 1500

UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
ENDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PATTERN = "|".join([
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{ENDS}",
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{ENDS}",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
])

CONTROL = ["<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>",
           "<|channel|>", "<|start|>", "<|end|>", "<|message|>", "<|call|>",
           "<|endofprompt|>"]

# Small and capital letters, titles, modifiers, letters without case, marks,
# digits, punctuation, every kind of white space, and what is none of these.
PIECES = list("abstdmzABSTDMZ127") + [
    "\u00df", "\u00e9", "\u00c9", "\u01c5", "\u02b0", "\u30fc", "\u3042",
    "\u4e2d", "\u0e01", "\u0e31", "\u0915", "\u094d", "\u0301", "\u0663",
    "\u2167", "\u00bd", "_", "-", ".", ",", "!", "/", "//", "'", "\u2019",
    '"', "\n", "\r", "\r\n", "\t", " ", "  ", "   ", "\u00a0", "\u3000",
    "\u2028", "\u0085", "\u000b", "\U0001f642", "\u200d", "\u200b", "\u017f",
    "'s", "'S", "'re", "'LL", "'Ve", "'\u017f", "the", "The", "HTML", " a",
    "\U00010400", "\U00010428", "\ufeff", "\u0000"]

TEXTS = [
    "", " ", "\n", "Hello, world!", "camelCase and PascalCase and SHOUTING",
    "I'll, you'LL; don'ts; 'tis. WE'RE", "1234567 12 3.14 0x1F", "a/b//c\n/d",
    "int main(void)\n{\n    return 0;\n}\n", "https://example.org/a?b=c#d\r\n",
    "   three spaces\t\ttabs  \n  \n end  ", "\u4f60\u597d\uff0c\u4e16\u754c",
    "\u041f\u0440\u0438\u0432\u0435\u0442 \u041c\u0418\u0420",
    "caf\u00e9 cafe\u0301 CAF\u00c9", "\U0001f468\u200d\U0001f469\u200d\U0001f467 ok",
]


def texts():
    rnd = random.Random(20)
    out = list(TEXTS)
    for i in range(400):
        out.append("".join(rnd.choices(PIECES, k=1 + i % 24)))
    return out


def learned():
    """Merges over all of the pieces' neighbourhoods."""
    rnd = random.Random(7)
    t = tokenizers.Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False)
    lines = ["".join(rnd.choices(PIECES, k=40)) for _ in range(4000)]
    t.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=VOCAB, show_progress=False, max_token_length=8,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return json.loads(t.to_str())["model"]


def make_gguf(model):
    w = gguf.GGUFWriter(HERE / "vocab.gguf", "gpt-oss")
    words = sorted(model["vocab"], key=model["vocab"].get)
    kinds = [gguf.TokenType.NORMAL] * len(words) \
        + [gguf.TokenType.CONTROL] * len(CONTROL)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-4o")
    w.add_token_list(words + CONTROL)
    w.add_token_types(kinds)
    w.add_token_merges([" ".join(m) for m in model["merges"]])
    w.add_eos_token_id(len(words) + CONTROL.index("<|return|>"))
    w.add_pad_token_id(len(words) + CONTROL.index("<|endoftext|>"))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


def main():
    HERE.mkdir(exist_ok=True)
    model = learned()
    t = tokenizers.Tokenizer(models.BPE(
        vocab=model["vocab"], merges=[tuple(m) for m in model["merges"]]))
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.add_special_tokens([tokenizers.AddedToken(c, special=True, normalized=False)
                          for c in CONTROL])
    t.save(str(HERE / "tokenizer.json"), pretty=False)
    (HERE / "tokenizer_config.json").write_text(json.dumps({
        "bos_token": "<|startoftext|>", "eos_token": "<|return|>",
        "pad_token": "<|endoftext|>"}, indent=2) + "\n")
    make_gguf(model)

    with open(HERE / "vectors.jsonl", "w") as f:
        for text in texts():
            ids = t.encode(text, add_special_tokens=False).ids
            assert t.decode(ids, skip_special_tokens=False) == text
            line = {"text": text, "ids": ids}
            f.write(json.dumps(line, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
