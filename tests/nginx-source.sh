#!/bin/sh
# tests/nginx-source.sh SUITE: fetches Debian's nginx source package of a suite
# (bookworm, trixie) and prints the directory of the unpacked upstream tree,
# without Debian's patches.  Works under build/ with package lists of its own; the system's
# are not touched.  Exit 77: it cannot be fetched here.

set -eu
suite=$1
dir=$(cd "$(dirname "$0")/.." && pwd)/build/nginx-source/$suite

found() {
    for d in "$dir"/nginx-*/; do
        [ -f "$d/auto/configure" ] || [ -f "$d/configure" ] || continue
        echo "${d%/}"
        exit 0
    done
}

mkdir -p "$dir/lists/partial"
found

# the mirror that this machine uses already
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    sed -n -e 's/^URIs: *\([^ ]*\).*/\1/p' \
        -e 's/^deb  *\(\[[^]]*\] *\)\{0,1\}\([^ ]*\) .*/\2/p' |
    grep 'debian/\{0,1\}$' | head -n 1)
[ -n "$mirror" ] || exit 77
keys=$(ls /usr/share/keyrings/debian-archive-keyring.* 2>/dev/null | head -n 1)
echo "deb-src ${keys:+[signed-by=$keys] }$mirror $suite main" >"$dir/list"

apt() {
    apt-get -qq -o Dir::Etc::SourceList="$dir/list" -o Dir::Etc::SourceParts=- \
        -o Dir::State::Lists="$dir/lists" -o APT::Sandbox::User=root "$@"
}

apt update >/dev/null 2>&1 || exit 77
cd "$dir"
# the upstream archive is enough, even where the rest is not mirrored
apt source --download-only nginx >/dev/null 2>&1 || true
for archive in nginx_*.orig.tar.*; do
    [ -f "$archive" ] && tar -xf "$archive"
done
found
exit 77
