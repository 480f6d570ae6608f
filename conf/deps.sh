#!/bin/sh
# conf/deps.sh run|test|bench: installs what is missing from Debian's packages.
# Says what and why first; without root or sudo it prints the one command and
# exits 1.

set -eu

run="nginx:the-web-server-(Debian-starts-it-on-port-80,-where-services-run)
nginx-dev:headers-to-build-the-module-against-it
libpcre2-dev:the-tokenizer's-patterns;-and-the-module-must-see-the-features-of-Debian's-nginx
gcc:compiler
libc6-dev:C-library-headers
make:build
libjansson-dev:JSON
libutf8proc-dev:normal-forms-of-Unicode-text
libssl-dev:keys,-and-signatures-of-JWTs
openssl:self-signed-certificate-for-localhost
curl:asks-whether-the-server-is-ready"

test="$run
clang-14:second-compiler,-fuzzing
libclang-rt-14-dev:sanitizer-runtime-of-clang
clang-format-14:layout-check
libcmocka-dev:unit-tests
spin:exhaustive-check-of-the-doorbell-protocol
perl:runs-the-server-tests-(prove)
faketime:a-clock-that-jumps
nghttp2-client:HTTP/2-client
python3-venv:the-official-openai-client-as-a-test
chromium:the-page-as-its-users-see-it,-without-a-screen
chromium-driver:drives-it
fonts-dejavu-core:letters-for-it
libsimde-dev:AVX-512-on-a-machine-that-lacks-it
zlib1g-dev:nginx-itself-is-built-with-a-sanitizer"

bench="$run
cmake:builds-llama.cpp,-which-the-engine-is-compared-with
g++:its-compiler
python3-venv:gets-its-source-from-the-package-index"

case "${1:-}" in
run)  want=$run ;;
test) want=$test ;;
bench) want=$bench ;;
*)    echo "usage: $0 run|test|bench" >&2; exit 2 ;;
esac

missing=
reasons=
for row in $want; do
    name=${row%%:*}
    case $(dpkg-query -W -f '${Status}' "$name" 2>/dev/null) in
    *"ok installed") ;;
    *)  missing="$missing $name"
        reasons="$reasons
  $name: $(echo "${row#*:}" | tr '-' ' ')" ;;
    esac
done

[ -n "$missing" ] || exit 0

echo "Not installed yet:$reasons"

if ! command -v apt-get >/dev/null; then
    echo "This is not Debian: install their like, then make all and conf/dev.sh run."
    exit 1
fi

install="apt-get install -y --no-install-recommends$missing"

if [ "$(id -u)" = 0 ]; then
    as_root=
elif sudo -n true 2>/dev/null; then
    as_root=sudo
else
    as_root=su\ -c
    command -v sudo >/dev/null && as_root="sudo sh -c"
    echo "Install with:"
    echo "  $as_root 'apt-get update && $install'"
    exit 1
fi

echo "Installing them with apt-get; this takes a minute."
wait="-qq -o DPkg::Lock::Timeout=300"  # others may be installing too
# without new lists the old ones may do
# shellcheck disable=SC2086
$as_root apt-get $wait update || echo "apt-get update failed; going on."
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive $install $wait >/dev/null || {
    echo "apt-get could not install$missing" >&2
    exit 1
}
