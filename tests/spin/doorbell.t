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

if ! command -v spin >/dev/null; then
    echo "1..0 # SKIP spin is not installed"
    exit 0
fi

mkdir -p "$BUILD/spin" && dir=$(mktemp -d "$BUILD/spin/XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
cp "$root"/tests/spin/*.pml "$dir" && cd "$dir" || exit 1

count=0
failed=0

# check MODEL clean|broken NAME MACRO...: one TAP line
check()
{
    model=$1
    expect=$2
    name=$3
    shift 3
    found=none

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

    count=$((count + 1))
    states=$(sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' log)

    if [ "$found" = "$expect" ]; then
        echo "ok $count - $model: $name (${states:-?} states)"
    else
        failed=$((failed + 1))
        echo "not ok $count - $model: $name: expected $expect, found $found"
        sed 's/^/# /' log
    fi
}

echo 1..16

check doorbell clean "no lost wake-up, no torn record"
check doorbell broken "consumer stores instead of exchanging" -DPLAIN_CONSUMER
check doorbell clean "the same without store buffers" -DPLAIN_CONSUMER -DSC
check doorbell broken "producer loads instead of exchanging" -DPLAIN_PRODUCER
check doorbell clean "the same without store buffers" -DPLAIN_PRODUCER -DSC
check doorbell broken "no second look at tail" -DNO_RECHECK
check doorbell broken "socket emptied behind the second look" -DLATE_RECV
check doorbell broken "tail before the record" -DTAIL_FIRST
check doorbell broken "head before the copy" -DHEAD_FIRST

check credit clean "no change of a slot line is slept through"
check credit broken "loop stores instead of exchanging" -DPLAIN_LOOP
check credit clean "the same without store buffers" -DPLAIN_LOOP -DSC
check credit broken "worker loads instead of exchanging" -DPLAIN_WORKER
check credit broken "no second look at the lines" -DNO_RELOOK
check credit broken "bell armed behind line_sleeps" -DBELL_LATE
check credit broken "bell armed behind the second look" -DBELL_LAST

[ "$failed" -eq 0 ]
