#!/bin/sh
# tests/python.sh PACKAGE VERSION SCRIPT [ARGUMENT...]: runs a Python script
# that needs a package of the index, which is fetched once.  Where it cannot be
# had that is one visible skip, in TAP.
#
#   LLM_VENV    virtual environment; default build/venv

set -eu

venv=${LLM_VENV:-$(cd "$(dirname "$0")/.." && pwd)/build/venv}
package=$1
version=$2
shift 2

skip() {
    echo "1..0 # SKIP $1"
    exit 0
}

if ! "$venv/bin/python" -c "from importlib.metadata import version as v
assert v('$package') == '$version'" 2>/dev/null; then
    mkdir -p "$(dirname "$venv")"
    [ -x "$venv/bin/pip" ] || python3 -m venv "$venv" >/dev/null 2>&1 ||
        skip "python3 -m venv does not work (Debian: python3-venv)"
    "$venv/bin/pip" install -q --disable-pip-version-check \
        "$package==$version" >/dev/null 2>&1 ||
        skip "the package $package $version cannot be installed"
fi

exec "$venv/bin/python" "$@"
