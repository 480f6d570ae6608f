"""Makes cuts.json: how texts are cut into words, by Hugging Face tokenizers.

    python3 -m venv build/hf && build/hf/bin/pip install tokenizers==0.23.3
    build/hf/bin/python tests/data/cuts/make.py

Each kind has the pre-tokenizer of its models' own tokenizer.json, or, where
there is none, the pattern of the tokenizer that their makers published; names
are those that GGUF files give it.  Words are written as their lengths in
bytes: nothing is ever dropped.
"""

import json
import os
import random

from tokenizers import Regex, pre_tokenizers as pre

WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
SPACE = r"\s+(?!\S)|\s+"
LLAMA3 = WORD + r"\p{N}{1,3}|" + REST + SPACE
QWEN2 = WORD + r"\p{N}|" + REST + SPACE
ENDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
UP, LOW = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"


def o200k(ends, digits, no=""):
    lead = r"[^\r\n\p{L}\p{N}]?"
    return (f"{lead}[{UP}{no}]*[{LOW}{no}]+{ends}|"
            f"{lead}[{UP}{no}]+[{LOW}{no}]*{ends}|" + digits)


SLASH = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|" + SPACE
GPT4O = o200k(ENDS, r"\p{N}{1,3}") + SLASH
DEEPSEEK3 = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|"""
             r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
             r"\s*[\r\n]+|" + SPACE)
RUNS = "".join(r"\s{%d}(?!\S)|" % n for n in (512, 256, 128, 64, 32, 16, 8, 4))
LETTERS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿ"
    "ᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗ\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4"
    "\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffcℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿ"
    "ⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟"
    "𞤀-𞥃")
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"


def split(*patterns):
    return [pre.Split(Regex(p), "isolated") for p in patterns]


def level(regex=False):
    return pre.ByteLevel(add_prefix_space=False, use_regex=regex)


KINDS = [
    (["gpt-2", "mpt", "olmo", "jais", "phi-2"], [level(True)]),
    (["smollm", "starcoder", "refact", "codeshell", "command-r"],
     [pre.Digits(individual_digits=True), level(True)]),
    (["falcon"], [pre.Punctuation("contiguous"), level(True),
                  pre.Digits(individual_digits=False),
                  pre.Split(Regex("[0-9][0-9][0-9]"), "isolated")]),
    (["qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "grok-2"],
     split(QWEN2) + [level()]),
    (["qwen35"], split(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|"
        r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|" + SPACE) + [level()]),
    (["llama-bpe", "llama3", "dbrx", "smaug-bpe", "glm4", "falcon3", "lfm2"],
     split(LLAMA3) + [level()]),
    (["minicpm5"], split(r"\p{N}{1,3}", WORD + r"\p{N}+|" + REST + SPACE)
     + [level()]),
    (["jais-2"], split(WORD + r"\p{N}{1,3}|" + REST + RUNS
                       + r"\s{1,2}(?!\S)|\s{1}") + [level()]),
    (["gpt-4o", "llama4", "kanana2", "minimax-m2"], split(GPT4O) + [level()]),
    (["tekken"], split(o200k("", r"\p{N}") + SLASH) + [level()]),
    (["kimi-k2"], split(r"[\p{Han}]+|"
                        + o200k(ENDS, r"\p{N}{1,3}|", r"&&[^\p{Han}]")
                        + REST + SPACE) + [level()]),
    (["youtu"], split(
        "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+",
        o200k(ENDS, r"\p{N}") + SLASH) + [level()]),
    (["bailingmoe", "bailingmoe2", "llada-moe"], split(
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}|"
        r" ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|" + SPACE) + [level()]),
    (["seed-coder"], split(
        WORD + r"\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|" + SPACE)
     + [level()]),
    (["exaone-moe"], split(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?"
        r"(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|"
        r"\s*[\r\n]|" + SPACE) + [level()]),
    (["bloom", "gpt3-finnish", "poro-chat"], split(BLOOM) + [level()]),
    (["viking"], split(BLOOM, r"\p{N}") + [level()]),
    (["deepseek-v3", "hunyuan-dense", "joyai-llm"],
     split(r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3) + [level()]),
    (["deepseek-llm"], split(r"[\r\n]", r"\s?[" + LETTERS + "]+",
                             "\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+", r"\s+$",
                             "[一-龥ࠀ-一가-퟿]+", r"\p{N}+") + [level()]),
    (["deepseek-coder"], split(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+",
                               "[一-龥ࠀ-一가-퟿]+")
     + [pre.Digits(individual_digits=True), level()]),
]

TEXTS = [
    "Hello, world! I'LL be back; they'Re here -- don't.",
    "    if (x == 10):\n\treturn a[i]  # 3.14159 12345678\r\n\r\n\n  y",
    "Smile \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 ok?! ...  end   ",
    "\u043c\u0438\u0440 \u041f\u0440\u0438\u0432\u0435\u0442 2024\u00b2 \u00bd x\u00b2y \u0663\u0664\u0665 \u2167",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30b9\u30c8\u3001\u4eba\u3005\u3007 \u4f60\u597d\uff0c\u4e16\u754c\u3002 \ud55c\uad6d\uc5b4 \u3131\u3105",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0964 \u0e44\u0e17\u0e22\u0e33 \u0627\u0644\u0639\u0631\u0628\u064a\u0629\u060c \u05e9\u05c1\u05dc\u05d5\u05dd",
    "HTTPServer camelCase ABCdef Ghi'sX \u01c5x \u00c0\u00c9 e\u0301a\u0308 O'NEILL's",
    "a/b//c/\n/d {x|y} <|im_end|> [INST] $5+3=8 `q` ~z ^k a_b @c #d",
    "\u00a0x\u2003y\u3000\u3000z \u2028w \u0085v \t\t\n \n", "   ", "", "\n\n",
    "1 22 333 4444 55555 1,234,567.89 0x1F \u0967\u0968\u0969\u096a",
    "\u1f60\u1f7d \u1fbe \u2126 \u212a \u00aa \u01bb \ua7b5 \U00010400 \U0001e943",
    "\u2018a\u2019 \u201cb\u201d \u2014 \u2026 \uff01\uff1f \u00ab c \u00bb \u3010d\u3011",
]
POOL = list("abXYZ  \n\r\t12'.,!/-_(|") + [
    "'s", "'LL", "  ", "\n\n", "\u00a0", "\u3000", "\u00e9", "e\u0301", "\u0301",
    "\u4e2d", "\u3005", "\u3042", "\uac00", "\u0905", "\u093f", "\u0967", "\u00b2",
    "\u216b", "\u01c5", "\u2019", "\u3002", "\uff0c", "\u20ac", "\u200d",
    "\U0001f600", "\u0e01", "\u0627", "\u060c", "\u017f", "the", "Word"]


def main():
    random.seed(1)
    texts = TEXTS + ["".join(random.choices(POOL, k=random.randint(1, 24)))
                     for _ in range(120)]
    kinds = []
    for names, steps in KINDS:
        cutter = pre.Sequence(steps)
        cuts = [[len(w) for w, _ in cutter.pre_tokenize_str(t)] if t else []
                for t in texts]
        for text, cut in zip(texts, cuts):
            assert sum(cut) == len(text.encode()), (names, text)
        kinds.append({"names": names, "cuts": cuts})

    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cuts.json")
    with open(path, "w", encoding="ascii") as f:
        f.write('{"texts": ' + json.dumps(texts) + ',\n"kinds": [\n')
        f.write(",\n".join(json.dumps(k, separators=(",", ":")) for k in kinds))
        f.write("\n]}\n")


main()
