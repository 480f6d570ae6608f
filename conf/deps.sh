#!/bin/sh
# conf/deps.sh run|test: installs what is missing from Debian's packages.
# Says what and why first; without root or sudo it prints the one command and
# exits 1.

set -eu

run="nginx:the-web-server
nginx-dev:headers-to-build-the-module-against-it
libpcre2-dev:the-module-must-see-the-features-of-Debian's-nginx
gcc:compiler
libc6-dev:C-library-headers
make:build
libjansson-dev:JSON
openssl:self-signed-certificate-for-localhost
curl:asks-whether-the-server-is-ready"

test="$run
clang-14:second-compiler,-fuzzing
libclang-rt-14-dev:sanitizer-runtime-of-clang
clang-format-14:layout-check
libcmocka-dev:unit-tests
spin:exhaustive-check-of-the-doorbell-protocol
perl:runs-the-server-tests-(prove)
nghttp2-client:HTTP/2-client
python3-venv:the-official-openai-client-as-a-test
libssl-dev:nginx-itself-is-built-with-a-sanitizer
zlib1g-dev:the-same"

case "${1:-}" in
run)  want=$run ;;
test) want=$test ;;
*)    echo "usage: $0 run|test" >&2; exit 2 ;;
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

if [ "$(id -u)" = 0 ]; then
    as_root=
elif sudo -n true 2>/dev/null; then
    as_root=sudo
else
    echo "Install with:"
    echo "  sudo apt-get install --no-install-recommends$missing"
    exit 1
fi

echo "Installing them with apt-get."
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq
# shellcheck disable=SC2086
$as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
