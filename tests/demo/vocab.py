"""The tokenizer: byte-level BPE of 3,072 pieces, digits one by one.

Trained on the lessons themselves; tokenizer.json is what the trainer, the
exporter and the tests of the engine's tokenizer read.
"""
import sys

from tokenizers import (Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        trainers)

from lessons import conversation

PIECES = 3072
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# the pre-tokenizer that model files call "qwen2"; such models compose their text first
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
         r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def around(model):
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def from_gguf(reader):
    """The tokenizer that a model file (gguf.GGUFReader) holds."""
    pieces = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in reader.fields["tokenizer.ggml.merges"].contents()]
    tokenizer = around(models.BPE({p: i for i, p in enumerate(pieces)}, merges))
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def train(conversations=40000):
    tokenizer = around(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    # a seed of its own: the vocabulary has not seen the stream it will read
    texts = ("".join(t for t, _ in conversation(i, "vocab")) for i in range(conversations))
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


if __name__ == "__main__":
    train().save(sys.argv[1])
