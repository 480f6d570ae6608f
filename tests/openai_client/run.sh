#!/bin/sh
# Runs OpenAI's own Python client against a server and prints TAP.
#
#   LLM_BASE_URL   https://localhost:8443/v1
#   LLM_MODEL      the model's name there
#   LLM_CAFILE     certificate to trust, for https; default: the system's
#   LLM_VENV       virtual environment; default build/venv
#
# The client comes from the package index, once.  Where that cannot be reached
# the whole run is one visible skip.

set -eu

dir=$(cd "$(dirname "$0")" && pwd)
venv=${LLM_VENV:-$dir/../../build/venv}
version=3.54.0

skip() {
    echo "1..0 # SKIP $1"
    exit 0
}

: "${LLM_BASE_URL:?is not set}" "${LLM_MODEL:?is not set}"

if ! "$venv/bin/python" -c "import openai; assert \
openai.__version__ == '$version'" 2>/dev/null; then
    mkdir -p "$(dirname "$venv")"
    python3 -m venv "$venv" >/dev/null 2>&1 ||
        skip "python3 -m venv does not work (Debian: python3-venv)"
    "$venv/bin/pip" install -q --disable-pip-version-check \
        "openai==$version" >/dev/null 2>&1 ||
        skip "the package openai $version cannot be installed"
fi

exec "$venv/bin/python" "$dir/test_openai.py"
