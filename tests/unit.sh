#!/bin/sh
# tests/unit.sh PROGRAM...: runs cmocka programs, two at a time, one line each,
# all output of one that fails, and the sum.  A skipped test is counted, never
# hidden.

set -u

if [ "$1" = --one ]; then # DIR PROGRAM: output and exit status into DIR
    log=$2/$(echo "$3" | tr / _)
    "$3" >"$log" 2>&1
    echo $? >"$log.rc"
    exit 0
fi

passed=0
failed=0
skipped=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

printf '%s\n' "$@" | xargs -P 2 -n 1 "$0" --one "$dir"

for prog in "$@"; do
    log=$dir/$(echo "$prog" | tr / _)
    rc=$(cat "$log.rc")
    run=$(sed -n 's/^\[==========\] \([0-9]*\) test(s) run\..*/\1/p' "$log" |
        awk '{n += $1} END {print n + 0}')
    # cmocka lists them once more at the end, behind their number
    skip=$(sed -n 's/^\[  SKIPPED \] \([0-9]*\) test(s).*/\1/p' "$log" |
        awk '{n += $1} END {print n + 0}')
    if [ "$rc" = 0 ] && [ "$run" -gt 0 ]; then
        echo "ok $prog: $run tests, $skip skipped"
        passed=$((passed + run - skip))
    elif [ "$rc" = 77 ]; then
        echo "skipped $prog: $(tail -n 1 "$log")"
        skip=1
    else
        echo "FAILED $prog (exit $rc):"
        cat "$log"
        failed=$((failed + 1))
    fi
    skipped=$((skipped + skip))
done

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
