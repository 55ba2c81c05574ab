#!/usr/bin/env bash
# bench_test.sh CACHALOT alone|passes|ucx|by_hand|refusals|mpirun
#
# Short runs of `cachalot bench alltoall`, `allreduce` and `dispatch`: the table's form, and no wrong results.
set -euo pipefail
export LC_ALL=C
# Whoever runs the tests may itself have been started by one of these.
unset "${!OMPI_@}" "${!PMI_@}" "${!PMIX_@}" "${!SLURM_@}" ECCL_ALLTOALLV_MAXSIZE GLOO_SOCKET_IFNAME

cachalot=$1 case=$2
output=$(mktemp)
trap 'rm -f "$output"' EXIT
quick=(-n 3 -w 1)

fail() {
  echo "$*"
  sed 's/^/  /' "$output"
  exit 1
}

# Runs, and holds the table against what is asked for.
expect_table() {  # TYPE NUM_ROWS COMMAND...
  local type=$1 num_rows=$2
  shift 2
  echo "$*"
  timeout 60 "$@" >"$output" || fail "exit status $?"
  awk -v type="$type" -v num_rows="$num_rows" '
    /^#/ { next }
    NF != 7 || $3 != type || $4 <= 0 || $NF != "0" { print "not a right row: " $0; bad = 1 }
    { rows++ }
    END { if (rows != num_rows) { print rows + 0 " rows, should be " num_rows; bad = 1 }; exit bad }' "$output" ||
    fail "the table is wrong:"
}

expect_refusal() {  # TEXT COMMAND...
  local text=$1
  shift
  if timeout 60 "$@" >"$output" 2>&1; then fail "not refused: $*"; fi
  grep -qF -e "$text" "$output" || fail "'$text' is not in what '$*' says:"
}

run_all() {  # COMMAND... before the name of the measurement, with flags in `flags`
  expect_table uint8 3 "$@" bench alltoall -b 1k -e 16k -f 4 "${quick[@]}" "${flags[@]}"
  expect_table bfloat16 2 "$@" bench allreduce -b 1k -e 14k -f 14 "${quick[@]}" "${flags[@]}"
  expect_table float 1 "$@" bench allreduce -b 100 -e 100 -d float "${quick[@]}" "${flags[@]}"
  expect_table int8 2 "$@" bench dispatch -b 1 -e 4 -f 4 "${quick[@]}" "${flags[@]}"
  expect_table bfloat16 1 "$@" bench dispatch -b 2 -e 2 -d bfloat16 "${quick[@]}" "${flags[@]}"
}

case $case in
  alone)
    for ranks in 1 2 4; do
      flags=(--ranks "$ranks")
      run_all "$cachalot"
    done
    ;;
  passes)
    export ECCL_ALLTOALLV_MAXSIZE=300000
    flags=(--ranks 2 "${quick[@]}")
    expect_table uint8 2 "$cachalot" bench alltoall -b 299k -e 1M -i 725k "${flags[@]}"
    expect_table bfloat16 1 "$cachalot" bench allreduce -b 1M -e 1M "${flags[@]}"
    expect_table int8 1 "$cachalot" bench dispatch -b 64 -e 64 "${flags[@]}"
    expect_table int8 1 "$cachalot" bench dispatch -b 16 -e 16 --ranks 3  # which do not divide the experts
    ;;
  ucx)
    flags=(--ranks 2 --transports ucx)
    run_all "$cachalot"
    grep -q 'through ucx' "$output" || fail "not through UCX:"
    ;;
  by_hand)
    export SLURM_NTASKS=2 SLURM_NNODES=1 SLURM_JOB_ID=$$
    SLURM_PROCID=1 "$cachalot" bench alltoall "${quick[@]}" >/dev/null &
    SLURM_PROCID=0 expect_table uint8 11 "$cachalot" bench alltoall "${quick[@]}"
    wait $! || fail "rank 1: exit status $?"
    ;;
  refusals)
    bench=("$cachalot" bench alltoall)
    expect_refusal "--minbytes 10 is more than --maxbytes 5" "${bench[@]}" --ranks 2 -b 10 -e 5
    expect_refusal "--minbytes" "${bench[@]}" --ranks 2 -b ten
    expect_refusal "--minbytes 0" "${bench[@]}" --ranks 2 -b 0
    ECCL_ALLTOALLV_MAXSIZE=4 expect_refusal "a buffer of 4 bytes" "${bench[@]}" --ranks 8
    expect_refusal "3 ranks need at least 3" "${bench[@]}" --ranks 3 -b 2 -e 4
    expect_refusal "GiB are free" "${bench[@]}" --ranks 2 -e 4096G
    export SLURM_NTASKS=2 SLURM_NNODES=1 SLURM_JOB_ID=$$
    SLURM_PROCID=1 expect_refusal "--ranks 4 contradicts SLURM_PROCID and SLURM_NTASKS, which say 2" "${bench[@]}" --ranks 4
    SLURM_PROCID=2 expect_refusal "SLURM_PROCID=2 is no number from 0 to 1" "${bench[@]}"
    SLURM_PROCID=1 expect_refusal "rank 0" "${bench[@]}" --start-timeout 1
    SLURM_PROCID=1 "${bench[@]}" -n 7 >/dev/null 2>&1 &
    SLURM_PROCID=0 expect_refusal "--iters" "${bench[@]}" -n 8
    ! wait $! || fail "rank 1 went on with other flags than rank 0"
    ;;
  mpirun)
    command -v mpirun >/dev/null || exit 77
    mpirun=(mpirun -np 4)
    if mpirun --version | grep -q 'Open MPI'; then mpirun+=(--oversubscribe); fi
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    flags=()
    run_all "${mpirun[@]}" "$cachalot"
    expect_refusal "--ranks 3 contradicts" "${mpirun[@]}" "$cachalot" bench alltoall --ranks 3
    ;;
  *) echo "no such case: $case" && exit 1 ;;
esac
