#!/bin/bash
# tests/simt/plant.sh [NAME]: errors put into the kernels, one at a time, each
# of which a net must find: the ops beside plain C by some seeds, the whole
# engine, or a sanitizer.  A net that lets one through is no net.
#
# Needs what tests/simt/make.sh builds in each way; only the file with the error
# is compiled, in a copy of the sources.

set -u
cd "$(dirname "$0")/../.."
build=${BUILD:-build}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
bad=0
caught=0
mkdir -p "$tmp/engine" "$tmp/tests"
cp -r Makefile kernels "$tmp/"
cp engine/*.h "$tmp/engine/"
cp -r tests/simt "$tmp/tests/"

# The plug-in with these objects from the copy, the others as they are.
link() { # directory, the copy's, flags, objects...
    local dir=$1 copy=$2 flags=$3 o all
    shift 3
    all="$dir/simt/rt_twin.o $dir/simt/simt.o $dir/simt/dequant.o"
    all+=" $dir/simt/attn_plan.o"
    for o in kernels/cuda/*.cu; do
        o=$(basename "$o" .cu)
        case " rt $* " in
        *" $o "*) [ "$o" = rt ] || all+=" $copy/simt/$o.o" ;;
        *) all+=" $dir/simt/$o.o" ;;
        esac
    done
    # shellcheck disable=SC2086 # words
    g++ -shared -o "$tmp/planted.so" $all -pthread $flags
}

# The same of the program of attention's kernels.
link_attn() { # directory, the copy's, flags, objects...
    local dir=$1 copy=$2 flags=$3 o all="$1/simt/simt.o $1/simt/rt_twin.o"
    shift 3
    for o in '' _decode _prefill _fast _plan; do
        case " $* " in
        *" parts/attn$o "*) all+=" $copy/simt/parts/attn$o.o" ;;
        *) all+=" $dir/simt/parts/attn$o.o" ;;
        esac
    done
    # shellcheck disable=SC2086
    g++ -o "$tmp/planted" $all "$dir/liball.a" -lm -pthread $flags
}

# name, file, sed's edit, its objects, how it is built, seeds, what is to be
# said, and the program with what it is given
plant() {
    local name=$1 file=$2 edit=$3 objects=$4 how=$5 seeds=$6 words=$7
    local seed dir o
    local program=$8 copy=$tmp/b flags=
    shift 8
    [ -z "$only" ] || [ "$only" = "$name" ] || return
    dir=$build
    case $how in
    address)
        dir=$build/simt-asan copy=$tmp/b/simt-asan
        flags=-fsanitize=address,undefined
        ;;
    thread)
        dir=$build/simt-tsan copy=$tmp/b/simt-tsan
        flags=-fsanitize=thread
        ;;
    esac

    cp "$file" "$tmp/was"
    sed "$edit" "$tmp/was" >"$tmp/$file"
    if cmp -s "$tmp/was" "$tmp/$file"; then
        echo "$name: the edit of $file changes nothing"
        bad=1
        return
    fi
    rm -f "$tmp/planted" "$tmp/planted.so"
    for o in $objects; do
        rm -f "$copy/simt/$o.o"
        BUILD=$tmp/b "$tmp/tests/simt/make.sh" "$how" "simt/$o.o"
    done
    cp "$tmp/was" "$tmp/$file"
    # shellcheck disable=SC2086
    if [ "$program" = attn ]; then
        link_attn "$dir" "$copy" "$flags" $objects
    else
        link "$dir" "$copy" "$flags" $objects
        set -- "$dir/$program" "$tmp/planted.so" "$@"
    fi

    if [ ! -e "$tmp/planted" ] && [ ! -e "$tmp/planted.so" ]; then
        echo "$name: it does not compile"
        bad=1
        return
    fi

    for seed in $seeds; do
        [ "$program" != attn ] || set -- env CASE=parts "$tmp/planted" "$seed"
        export LLM_SIMT_SEED=$seed LLM_SIMT_THREADS=$((1 + seed % 2))
        LLM_BRIEF=1 LLM_EACH=3 timeout 300 "$@" >"$tmp/said" 2>&1
        if [ $? -ne 0 ] && grep -q "$words" "$tmp/said"; then
            echo "$name: found by seed $seed, $how:" \
                "$(grep -m 1 "$words" "$tmp/said")"
            caught=$((caught + 1))
            return
        fi
    done
    echo "$name: nobody finds it ($how, seeds $seeds)"
    tail -n 5 "$tmp/said"
    bad=1
}

only=${1:-}
K=kernels/cuda
differ='Failure!'

plant 'no barrier before sums are read' $K/reduce.h \
    '0,/__syncthreads();/s///' norm plain '1 2 3' "$differ" kernels/ops rmsnorm
plant 'the same, by a sanitizer' $K/reduce.h \
    '0,/__syncthreads();/s///' norm thread 1 'data race' kernels/ops rmsnorm
plant 'a barrier that some do not reach' $K/reduce.h \
    '0,/__syncthreads();/s//if (threadIdx.x < 100) __syncthreads();/' norm \
    plain 1 'nobody can go on' kernels/ops rmsnorm
plant 'fragments changed over' $K/gemm.h \
    's/{w\[0\].x, w\[1\].x, w\[0\].y, w\[1\].y}/{w[0].x, w[0].y, w[1].x, w[1].y}/' \
    gemm plain 1 "$differ" kernels/ops matmul
plant 'a row of a tile too many' $K/gemm.h \
    's/row = row < m.n ? row : m.n - 1;//' gemm address 1 \
    'heap-buffer-overflow' kernels/ops matmul
plant 'a store beyond the end' $K/rows.cu \
    's/i < dim; i += GPU_THREADS/i <= dim; i += GPU_THREADS/' rows plain 1 \
    "$differ" kernels/ops embed
plant 'a mask that nobody looks at' $K/sample.cu \
    's/\*o.mask == NULL ||/true ||/' sample plain 1 "$differ" simt/engine all
plant 'half of the tokens that are penalized' $K/plan.cu \
    's/known_n = looked_at(o);/known_n = looked_at(o) \/ 2;/' plan plain 1 \
    "$differ" simt/engine all
plant 'a launch before its memory is allowed' $K/attn_decode.cu \
    '/rt_allow_shared/d' parts/attn_decode plain 1 'of shared memory' attn
plant 'who comes after is not waited for' $K/rows.cu \
    '/gpu_begin();/d' rows plain 1 'without a wait' kernels/ops embed
plant 'a copy that nobody waits for' $K/attn.cuh \
    's/ptx_copy_wait<STAGES - 2>();//' parts/attn_decode plain 1 \
    'never waited for' attn
plant 'a merge that waits for nothing' $K/attn.cuh \
    's/ptx_add_acq_rel(came, 1)/atomicAdd(came, 1u)/' parts/attn_decode \
    thread 1 'data race' attn

echo "$caught errors found"
exit $bad
