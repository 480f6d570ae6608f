#!/bin/sh
# tests/demo/make.sh train|export|exam [ARGUMENT...]: the demo model again.
#
#   train    build/demo/run from nothing, or on from its checkpoint
#   export   from there conf/demo/*.gguf, its Hugging Face directory
#            build/demo/hf, and the reference values in tests/data/demo
#   exam     the rates of the model, over the API of a server of its own
#
# Python packages go to build/demo/venv, once.

set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
build=${BUILD:-build}
case $build in /*) ;; *) build=$root/$build ;; esac
demo=$build/demo
model=$root/conf/demo/ngx-llm-demo.gguf
data=$root/tests/data/demo
python=$demo/venv/bin/python
export PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 PORT=${PORT:-18080} \
    TLS_PORT=${TLS_PORT:-18443}

what=${1:-}
case $what in
train | export | exam) shift ;;
*)
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

if ! "$python" -c "import gguf, jinja2, torch, transformers" 2>/dev/null; then
    echo "Installing Python packages into $demo/venv"
    mkdir -p "$demo"
    python3 -m venv "$demo/venv"
    "$demo/venv/bin/pip" install -q -r "$here/requirements.txt"
fi

case $what in
train)
    exec "$python" "$here/train.py" "$demo/run" "$@"
    ;;
export)
    mkdir -p "$root/conf/demo" "$data"
    "$python" "$here/export.py" gguf "${1:-$demo/run}" "$model"
    "$python" "$here/export.py" hf "$model" "$demo/hf"
    "$python" "$here/golden.py" "$demo/hf" "$data/ngx-llm-demo.golden.json" \
        "$data/vectors.jsonl"
    ;;
exam)
    trap '"$root/conf/dev.sh" stop >/dev/null' EXIT
    MODEL=$model "$root/conf/dev.sh" start >/dev/null
    "$python" "$here/evaluate.py" "$model" "http://localhost:$PORT/v1" "$@"
    ;;
esac
