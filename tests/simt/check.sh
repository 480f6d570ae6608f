#!/bin/sh
# tests/simt/check.sh PROGRAM plain|address|thread: the emulator's own test,
# tests/simt/check.cu, as it was built: that what must work does, and that each
# fault is found, by the net that is for it, and called what it is.
set -u

program=$1 how=$2 bad=0 n=0

finds() { # FAULT WORDS: what is said has these in it
	said=$(exec 2>&1; "$program" "$1"; :)
	case $said in
	*"$2"*) n=$((n + 1)) ;;
	*)
		echo "check: $1: expected \"$2\", found:"
		echo "$said"
		bad=1
		;;
	esac
}

"$program" || bad=1
case $how in
plain)
	finds divergent 'nobody can go on'
	finds divergent 'waits: __syncthreads at tests/simt/check.cu'
	finds ended 'waits for a lane that has ended: __ballot_sync'
	finds apart 'waits: __shfl_xor_sync at tests/simt/check.cu'
	finds race 'depends on the order'
	finds unwaited 'ends with copies that it never waited for'
	finds early 'it reads ffffffff'
	finds rows 'no multiple of 16: ldmatrix_x4'
	finds large '300000 bytes of shared memory'
	finds unasked '50000 bytes of shared memory, and its kernel is allowed'
	finds none 'no launch is of 0, 1, 1 blocks'
	;;
address)
	finds outside 'heap-buffer-overflow'
	finds beyond 'heap-buffer-overflow'
	finds skewed 'misaligned address'
	;;
thread)
	finds race 'data race'
	finds race 'sum<false>'
	finds words 'data race'
	;;
esac
echo "emulator, $how: $n faults found"
exit $bad
