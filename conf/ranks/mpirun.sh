#!/bin/sh
# mpirun.sh HOST[,HOST...]: one model on these machines, a rank on each, rank 0
# on the first.  The secret's file is on all of them.
#
# mpirun ends all ranks when one dies; the loop starts them anew.

set -eu

: "${CONF:=/etc/llm/engine.conf}" "${ENGINE:=llm-engine}" "${PORT:=7700}"
: "${PAUSE:=2}"
: "${SECRET:=/etc/llm/ranks.secret}"

hosts=$1
n=$(echo "$hosts" | tr ',' '\n' | wc -l)

until mpirun -n "$n" --host "$hosts" "$ENGINE" -c "$CONF" \
    --tensor_parallel_address "${hosts%%,*}:$PORT" \
    --tensor_parallel_secret "$SECRET"; do
    sleep "$PAUSE"
done
