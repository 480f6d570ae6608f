#!/bin/sh
# tests/simt/gates.sh [short|long] [FILE.cu ...]: what a compiler tells of
# kernels, where there is no GPU.
#
# Spills and local memory are errors.  Of each kernel budget.txt has a line:
# registers and shared memory of the kernel's own are at most what it says,
# and the instructions that count (products of matrices, loads of them, copies
# to shared memory, loads and stores of global memory by the bits that a lane
# moves) as many as it says.  What is asked for at a launch the emulator looks at.
#
# Short is for compute capability 9.0 alone, long for 8.0 too.  A change that is
# meant is: tests/simt/gates.sh print >tests/simt/budget.txt, and a look at the
# difference.  Exit 77 without nvcc.
set -eu
cd "$(dirname "$0")/../.."

what=${1:-short}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- kernels/cuda/*.cu
nvcc=${CUDA_HOME:-/usr/local/cuda}/bin/nvcc
[ -x "$nvcc" ] || nvcc=$(command -v nvcc) || { echo "gates: no nvcc"; exit 77; }

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
archs=90a
[ "$what" = short ] || archs='90a 80'

# The census itself: an instruction each, in kernels of its name.
"$nvcc" -std=c++17 -arch=sm_90a -cubin -Iengine -Ikernels -Ikernels/cuda \
	-o "$tmp/one.cubin" tests/simt/census.cu
tests/simt/census "$tmp/one.cubin" >"$tmp/one"
while read -r name n all; do
	case " $all " in
	*" $name=1 "*) ;;
	*) echo "gates: census: $name has $n instructions: $all"; exit 1 ;;
	esac
done <"$tmp/one"

# And the compiler: a kernel with local memory, as two of them have, is refused.
if "$nvcc" -std=c++17 -O2 -arch=sm_90a -cubin -Iengine -Ikernels \
	-Ikernels/cuda -Xptxas -warn-spills,-warn-lmem-usage,-Werror \
	-o "$tmp/local.cubin" tests/simt/census.cu >/dev/null 2>&1; then
	echo "gates: a kernel with local memory is let through"
	exit 1
fi

# One line a kernel: architecture, name, registers, bytes, what counts; compiled
# as the Makefile does it.
lines() {
	for arch in $archs; do
		for f; do
			"$nvcc" -std=c++17 -O2 -fmad=false -cubin \
				-gencode="arch=compute_$arch,code=sm_$arch" \
				-Iengine -Ikernels -Ikernels/cuda -o "$tmp/k.cubin" \
				-Xptxas -v,-warn-spills,-warn-lmem-usage,-Werror \
				"$f" 2>"$tmp/log" ||
				{ grep -v '^ptxas info\|^ *[0-9]* bytes\|^$' "$tmp/log" >&2; return 1; }
			tests/simt/census "$tmp/k.cubin" >"$tmp/census"
			awk -v arch="$arch" '
			/Compiling entry/ { split($0, a, "\047"); name = a[2] }
			/Used [0-9]+ registers/ {
				bytes[name] = 0
				for (i = 1; i < NF; i++) {
					if ($i == "Used") regs[name] = $(i + 1)
					if ($(i + 2) ~ /^smem/) bytes[name] = $i
				}
			}
			FILENAME ~ /census$/ {
				line = arch " " $1 " " regs[$1] " " bytes[$1]
				for (i = 3; i <= NF; i++)
					if ($i ~ /^(HMMA|LDSM|LDGSTS|LDG|STG|LDL|STL|LD=|ST=)/)
						line = line " " $i
				print line
			}' "$tmp/log" "$tmp/census"
		done
	done
}

lines "$@" >"$tmp/lines"
if [ "$what" = print ]; then
	echo "# architecture, kernel, registers and bytes at most, instructions that count"
	cat "$tmp/lines"
	exit 0
fi

awk '
FNR == NR { if ($0 !~ /^#/) budget[$1 " " $2] = $0; next }
{
	key = $1 " " $2
	n++
	if (!(key in budget)) { print "gates: " key " has no line in the budget"; bad = 1; next }
	split(budget[key], b, " ")
	rest = $0; sub(/^[^ ]+ [^ ]+ [^ ]+ [^ ]+/, "", rest)
	want = budget[key]; sub(/^[^ ]+ [^ ]+ [^ ]+ [^ ]+/, "", want)
	if ($3 > b[3] + 0) { print "gates: " key ": " $3 " registers, " b[3] " are allowed"; bad = 1 }
	if ($4 > b[4] + 0) { print "gates: " key ": " $4 " bytes shared, " b[4] " are allowed"; bad = 1 }
	if (rest != want) { print "gates: " key ":" rest ", and should be" want; bad = 1 }
}
END {
	print "gates: " n " kernels, " (bad ? "not all" : "all") " within their budget"
	exit bad
}
' tests/simt/budget.txt "$tmp/lines"
