#!/bin/sh
# tests/bench/tokenize.sh [PYTHON]: text to tokens on one core, ours and Hugging
# Face's tokenizers in the same run, over LLM_DATA/text and the vocabularies
# beside it.  PYTHON has the package; without it one is put under build/.

set -eu
cd "$(dirname "$0")/../.."
build=${BUILD:-build}
data=${LLM_DATA:-../shared/data}
python=${1:-$build/hf/bin/python}

make -s "$build/bench/token"
if [ ! -x "$python" ]; then
    python3 -m venv "$build/hf"
    "$build/hf/bin/pip" -q install tokenizers
fi

for name in kjv sherlock; do
    text=$build/bench/$name.txt
    zcat "$data/text/$name.txt.gz" > "$text"
    echo "== $name, ours"
    "$build/bench/token" "$text"
    echo "== $name, tokenizers (processor time, the better of whole and by line)"
    TOKENIZERS_PARALLELISM=false RAYON_NUM_THREADS=1 "$python" - "$data" "$text" <<'EOF'
import sys, time
from tokenizers import Tokenizer

data, path = sys.argv[1:]
text = open(path, encoding="utf-8").read()
lines = text.splitlines(keepends=True)
size = len(text.encode())


def timed(work):
    best = 1e9
    for _ in range(3):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return size / best / 1e6


for name in ("qwen3", "phi-2", "phi-3-mini", "t5-small"):
    t = Tokenizer.from_file("%s/tokenizers/%s/tokenizer.json" % (data, name))
    whole = timed(lambda: t.encode_batch_fast([text], add_special_tokens=False))
    line = timed(lambda: t.encode_batch_fast(lines, add_special_tokens=False))
    print("%-42s %6.1f MB/s whole %6.1f MB/s by line" % (name, whole, line))
EOF
done
