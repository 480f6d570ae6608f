#!/bin/sh
# The doorbell and credit models, checked exhaustively.  A model as it stands
# must have no error in any interleaving, and each copy with one rule broken
# must have one: a model that finds nothing wrong anywhere proves nothing.
# Prints TAP; run it by prove or by hand, from any directory.

root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
BUILD=${BUILD:-build}
case $BUILD in
/*) ;;
*) BUILD=$root/$BUILD ;;
esac

# --one DIR NUMBER MODEL clean|broken NAME MACRO...: one TAP line into DIR
if [ "$1" = --one ]; then
    out=$2/$3.tap
    number=$3
    model=$4
    expect=$5
    name=$6
    shift 6
    found=none
    mkdir "$out.d" && cp "$root"/tests/spin/*.pml "$out.d" && cd "$out.d" || exit 1

    if spin -a "$@" "$model.pml" >log 2>&1 \
        && ${CC:-cc} -O0 -w -DSAFETY -o pan pan.c >>log 2>&1 \
        && ./pan -m200000 -w20 >>log 2>&1 \
        && ! grep -q 'search not completed\|max search depth' log
    then
        # a whole search; its last word counts
        grep -q '^State-vector.*errors: 0$' log && found=clean
    fi

    # what is looked for, not just any failure
    grep -q 'errors: 1$' log \
        && grep -q 'invalid end state\|assertion violated' log && found=broken

    states=$(sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' log)
    if [ "$found" = "$expect" ]; then
        echo "ok $number - $model: $name (${states:-?} states)" >"$out"
    else
        {
            echo "not ok $number - $model: $name: expected $expect, found $found"
            sed 's/^/# /' log
        } >"$out"
    fi
    exit 0
fi

if ! command -v spin >/dev/null; then
    echo "1..0 # SKIP spin is not installed"
    exit 0
fi

mkdir -p "$BUILD/spin" && dir=$(mktemp -d "$BUILD/spin/XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
self=$root/tests/spin/doorbell.t

# two at a time
cat >"$dir/list" <<'LIST'
1 doorbell clean "no lost wake-up, no torn record"
2 doorbell broken "consumer stores instead of exchanging" -DPLAIN_CONSUMER
3 doorbell clean "the same without store buffers" -DPLAIN_CONSUMER -DSC
4 doorbell broken "producer loads instead of exchanging" -DPLAIN_PRODUCER
5 doorbell clean "the same without store buffers" -DPLAIN_PRODUCER -DSC
6 doorbell broken "no second look at tail" -DNO_RECHECK
7 doorbell broken "socket emptied behind the second look" -DLATE_RECV
8 doorbell broken "tail before the record" -DTAIL_FIRST
9 doorbell broken "head before the copy" -DHEAD_FIRST
10 credit clean "no change of a slot line is slept through"
11 credit broken "loop stores instead of exchanging" -DPLAIN_LOOP
12 credit clean "the same without store buffers" -DPLAIN_LOOP -DSC
13 credit broken "worker loads instead of exchanging" -DPLAIN_WORKER
14 credit broken "no second look at the lines" -DNO_RELOOK
15 credit broken "bell armed behind line_sleeps" -DBELL_LATE
16 credit broken "bell armed behind the second look" -DBELL_LAST
LIST
n=$(wc -l <"$dir/list")
xargs -P 2 -L 1 "$self" --one "$dir" <"$dir/list"

echo "1..$n"
for i in $(seq "$n"); do
    cat "$dir/$i.tap" || echo "not ok $i - it did not end"
done
! grep -q '^not ok' "$dir"/*.tap
