#!/bin/bash
# tests/bench/peer.sh: gets llama.cpp, which tests/bench/cpu.sh compares with,
# and builds it for this machine, all under build/peer.  Its source comes from
# the package index: the source package of llama-cpp-python carries it.  Takes
# half an hour on two cores, once; JOBS compiles at a time.  With the argument
# "library" it ends as soon as there is cpu_peer.
#
#     build/peer/llama.cpp    the source
#     build/peer/bin          llama-server, llama-batched-bench, llama-bench,
#                             llama-quantize, and cpu_peer (llama.c)
#     build/peer/version      one line
#
# It is no part of what is served, and nothing of it is kept in the tree.

set -eu
cd "$(dirname "$0")/../.."
build=${BUILD:-build}
case $build in /*) ;; *) build=$PWD/$build ;; esac
peer=$build/peer
jobs=${JOBS:-2}
package=llama-cpp-python
mkdir -p "$peer"

if [ ! -d "$peer/llama.cpp" ]; then
    # what builds it may come as it is
    ls "$peer"/llama_cpp_python-*.tar.gz >/dev/null 2>&1 ||
        {
            python3 -m venv "$peer/venv"
            "$peer/venv/bin/pip" download -q --no-deps \
                --no-binary $package -d "$peer" $package >&2
        }
    archive=$(ls "$peer"/llama_cpp_python-*.tar.gz | sort -V | tail -n 1)
    rm -rf "$peer/part"
    mkdir "$peer/part"
    tar -xf "$archive" -C "$peer/part" --strip-components 1
    # the newest entry of the log of changes that names a commit
    commit=$(sed -n 's/.*llama\.cpp@\([0-9a-f]*\).*/\1/p' \
        "$peer/part/CHANGELOG.md" | head -n 1)
    archive=${archive##*/}
    echo "llama.cpp ${commit:-of unknown commit}, from ${archive%.tar.gz}" \
        >"$peer/version"
    mv "$peer/part/vendor/llama.cpp" "$peer/llama.cpp"
    rm -rf "$peer/part"
fi

compile() { # targets
    nice -n 15 cmake --build "$peer/cmake" -j "$jobs" --target "$@" \
        >>"$peer/build.log" 2>&1 || { tail -n 20 "$peer/build.log" >&2; exit 1; }
}

# Git, were it asked, would tell of the tree around it.
export GIT_DIR=/dev/null
if [ ! -f "$peer/cmake/CMakeCache.txt" ]; then
    cmake -S "$peer/llama.cpp" -B "$peer/cmake" -DCMAKE_BUILD_TYPE=Release \
        -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF \
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_UI=OFF \
        -DLLAMA_USE_PREBUILT_UI=OFF >"$peer/cmake.log" 2>&1 ||
        { tail -n 20 "$peer/cmake.log" >&2; exit 1; }
    ln -sfn cmake/bin "$peer/bin"
fi

# the library first: it is all that the tables of single steps need
[ -e "$peer/bin/libllama.so" ] || compile llama
own=tests/bench/peer/llama.c
if [ ! "$peer/bin/cpu_peer" -nt $own ]; then
    "${CC:-cc}" -std=gnu11 -O2 -Wall -Wextra -Werror \
        -I "$peer/llama.cpp/include" -I "$peer/llama.cpp/ggml/include" \
        -o "$peer/bin/cpu_peer" $own -L "$peer/bin" -lllama -lggml-base \
        -Wl,-rpath,"$peer/cmake/bin"
fi
if [ "${1:-all}" = all ] && [ ! -x "$peer/bin/llama-server" ]; then
    compile llama-bench llama-batched-bench llama-quantize llama-server
fi
cat "$peer/version"
