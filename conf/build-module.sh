#!/bin/bash
# Builds the nginx module.
#
#   conf/build-module.sh OUTDIR [NGINX_SRC]
#       OUTDIR/ngx_http_llm_module.so for the nginx whose development tree is
#       NGINX_SRC (Debian's nginx-dev: /usr/share/nginx/src).
#
#   STATIC=1 conf/build-module.sh OUTDIR NGINX_SRC
#       OUTDIR/nginx: a whole nginx from full sources, with the module built
#       in, AddressSanitizer, and without pool carving.
#
# CC chooses the compiler. Only OUTDIR is written to.

set -eu

cd "$(dirname "$0")/.."
root=$PWD

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    sed -n '2,13s/^# \{0,1\}//p' "$0"
    exit 1
fi

mkdir -p "$1"
out=$(cd "$1" && pwd)
src=${2:-/usr/share/nginx/src}
cc=${CC:-cc}
static=${STATIC:-0}
jobs=${JOBS:-2}

# nginx's configure does not quote: what it would split goes by another name
case $root$out in
*[!A-Za-z0-9._/+@:-]*)
    links=$(mktemp -d)
    trap 'rm -rf "$links"' EXIT
    ln -s "$root" "$links/root"
    ln -s "$out" "$links/out"
    root=$links/root
    out=$links/out
    ;;
esac

if [ ! -x "$src/configure" ]; then
    echo "build-module: no nginx source in $src (package nginx-dev)" >&2
    exit 1
fi

run() {
    local log=$out/$1.log
    shift
    if ! "$@" > "$log" 2>&1; then
        tail -n 30 "$log" >&2
        echo "build-module: failed, see $log" >&2
        exit 1
    fi
}

# configure finds its parts by relative names, so it runs in the tree; a tree
# that it would write Makefile into is worked on as a copy

if [ "$static" = 1 ]; then
    tree=$out/src
    rm -rf "$tree"
    cp -r "$src" "$tree"
    cd "$tree"

    # ngx_hash and friends are fine by ASan, leaks at exit are the core's own;
    # line numbers are all that a report needs of -g
    san="-fsanitize=address -fno-omit-frame-pointer"

    run configure ./configure --with-cc="$cc" --prefix="$out" \
        --builddir="$out/obj" --with-compat --with-debug --with-threads \
        --with-http_ssl_module --with-http_v2_module \
        --with-http_stub_status_module --with-http_realip_module \
        --with-http_auth_request_module \
        --with-cc-opt="-g1 -O1 $san -DNGX_DEBUG_PALLOC=1" \
        --with-ld-opt="$san" --add-module="$root"
    run make make -j "$jobs" -f "$out/obj/Makefile"
    install "$out/obj/nginx" "$out/nginx"
    echo "$out/nginx"
    exit
fi

if [ -f "$src/conf_flags" ]; then
    # Debian's own: the array NGX_CONF_FLAGS
    . "$src/conf_flags"
    tree=$src
else
    NGX_CONF_FLAGS=(--with-compat --with-debug --with-threads
        --with-http_ssl_module --with-http_v2_module)
    tree=$out/src
    rm -rf "$tree"
    cp -r "$src" "$tree"
fi

cd "$tree"
run configure ./configure "${NGX_CONF_FLAGS[@]}" --with-cc="$cc" \
    --with-cc-opt="-g -O2 -fstack-protector-strong -D_FORTIFY_SOURCE=2" \
    --add-dynamic-module="$root" --builddir="$out/obj"
run make make -j "$jobs" -f "$out/obj/Makefile" -C "$tree" modules

# a running nginx has the old file mapped: a new inode, never the same one
install "$out/obj/ngx_http_llm_module.so" "$out/ngx_http_llm_module.so.new"
mv "$out/ngx_http_llm_module.so.new" "$out/ngx_http_llm_module.so"
echo "$out/ngx_http_llm_module.so"
