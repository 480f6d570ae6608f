#!/bin/sh
# tests/seeds.sh TARGET: the directories, one a line, whose files a fuzz target
# takes as seeds beside tests/data/fuzz/TARGET: those of the test data
# (LLM_DATA), read where they are.  Nothing where there are none.

set -eu
cd "$(dirname "$0")/.."
data=${LLM_DATA:-../shared/data}

case $1 in
safetensors) # configuration and weights of whole models, as the target has them
    seeds=${BUILD:-build}/seeds-safetensors
    mkdir -p "$seeds"
    for dir in tests/data/models/* "$data/models/TinyStories-656K"; do
        [ -f "$dir/config.json" ] && [ -f "$dir/model.safetensors" ] || continue
        { cat "$dir/config.json" && printf '\000' && cat "$dir/model.safetensors"; } \
            >"$seeds/${dir##*/}"
    done
    echo "$seeds"
    ;;
load) # models, whole and in shards, with tokenizers and templates
    seeds=${BUILD:-build}/seeds-load
    mkdir -p "$seeds"
    python3 tests/fuzz/load_seeds.py "$data" "$seeds"
    echo "$seeds"
    ;;
jinja) # the templates of real models
    [ ! -d "$data/chat-templates" ] || echo "$data/chat-templates"
    ;;
grammar_ebnf) # grammars, behind a byte of options
    seeds=${BUILD:-build}/seeds-grammar_ebnf
    mkdir -p "$seeds"
    for file in "$data"/structured-output/gbnf/*.gbnf; do
        [ ! -f "$file" ] || { printf '\001' && cat "$file"; } >"$seeds/${file##*/}"
    done
    echo "$seeds"
    ;;
grammar_schema) # real schemas, the small ones
    seeds=${BUILD:-build}/seeds-grammar_schema
    mkdir -p "$seeds"
    python3 -c '
import glob, json, os, sys
for f in glob.glob(sys.argv[1] + "/structured-output/maskbench/*.json"):
    s = json.dumps(json.load(open(f))["schema"])
    if len(s) < 3000:
        open(sys.argv[2] + "/" + os.path.basename(f), "w").write("\1" + s)
' "$data" "$seeds"
    echo "$seeds"
    ;;
openai) # bodies of requests, and any JSON that is one or nearly
    for dir in JSONTestSuite JSONTestSuite-transform http-requests; do
        [ ! -d "$data/http-json/$dir" ] || echo "$data/http-json/$dir"
    done
    # strings that are hard on whoever reads them, each as a prompt's text
    strings=${BUILD:-build}/seeds-openai
    if [ -f "$data/http-json/naughty-strings.json" ]; then
        mkdir -p "$strings"
        python3 -c '
import json, sys
src, utf8, out = sys.argv[1:]
texts = [json.dumps(s, ensure_ascii=False) for s in json.load(open(src))]
seeds = [t.encode("utf-8", "surrogatepass") for t in texts]
seeds += [b"\"" + line.replace(b"\\", b"\\\\").replace(b"\"", b"\\\"") + b"\""
          for line in open(utf8, "rb").read().split(b"\n")]
for i, s in enumerate(seeds):
    body = b"{\"model\":\"m\",\"prompt\":" + s + b",\"messages\":[{\"role\":"
    body += b"\"user\",\"content\":" + s + b"}]}"
    open("%s/%04d" % (out, i), "wb").write(body)
' "$data/http-json/naughty-strings.json" "$data/http-json/utf8tests.bin" \
            "$strings"
        echo "$strings"
    fi
    ;;
esac
