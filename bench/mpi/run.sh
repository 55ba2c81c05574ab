#!/usr/bin/env bash
# run.sh CACHALOT [RANKS...]      of 2, 8 and 32 ranks if none are named
#
# `cachalot bench` beside the all-to-all and all-reduce of the MPI that is installed (Debian: openmpi-bin and libopenmpi-dev), on
# this machine, the same sizes. Rounds of both alternate, as machines drift: each figure is the median of ROUNDS, with the least
# and the most behind it, and each round's is the median of ITERATIONS calls. MPI's processes yield, as they would starve each
# other otherwise where ranks outnumber cores. The environment may set ROUNDS, ITERATIONS, SIZES, COLLECTIVES, CACHALOT_FLAGS
# and MPIRUN_FLAGS.
set -euo pipefail
export LC_ALL=C

cachalot=${1:?usage: run.sh CACHALOT [RANKS...]}
shift
[ $# -gt 0 ] || set -- 2 8 32
for tool in mpicc mpirun "$cachalot"; do
  command -v "$tool" >/dev/null || { echo "run.sh: $tool is not there" >&2; exit 1; }
done
rounds=${ROUNDS:-5} iterations=${ITERATIONS:-200}
read -ra sizes <<<"${SIZES:-1024 14336 65536 262144 1048576 4194304}"
read -ra collectives <<<"${COLLECTIVES:-alltoall allreduce}"
read -ra cachalot_flags <<<"${CACHALOT_FLAGS:-}"
read -ra mpirun_flags <<<"${MPIRUN_FLAGS:---oversubscribe --mca mpi_yield_when_idle 1 --mca pml ob1 --mca btl self,vader}"
warmup=$((iterations / 10 + 1))
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1  # in containers; others are not asked

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mpicc -O2 -o "$work/collectives" "$(dirname "$0")/collectives.c"

# "SIZE MICROSECONDS" a line
run_cachalot() {  # COLLECTIVE RANKS
  local size type=()
  [ "$1" = allreduce ] && type=(-d float)  # as MPI's
  for size in "${sizes[@]}"; do
    timeout 300 "$cachalot" bench "$1" --ranks "$2" -b "$size" -e "$size" -n "$iterations" -w "$warmup" "${type[@]}" \
      "${cachalot_flags[@]}" |
      awk '!/^#/ { print $1, $4 }'
  done
}
run_mpi() {
  timeout 300 mpirun "${mpirun_flags[@]}" -np "$2" "$work/collectives" "$1" "$iterations" "$warmup" "${sizes[@]}"
}

echo "# $(mpirun --version | head -n 1) with ${mpirun_flags[*]}; $(nproc) cores of $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
echo "# median of $rounds rounds in turn (least-most), each the median of $iterations calls; microseconds a call"
printf '%-10s %5s %9s %28s %28s %6s\n' collective ranks bytes cachalot MPI ratio
for collective in "${collectives[@]}"; do
  for ranks in "$@"; do
    : >"$work/times"
    for ((round = 0; round < rounds; round++)); do
      run_cachalot "$collective" "$ranks" | sed 's/^/cachalot /' >>"$work/times"
      run_mpi "$collective" "$ranks" | sed 's/^/mpi /' >>"$work/times"
    done
    sort -k1,1 -k2,2n -k3,3n "$work/times" | awk -v collective="$collective" -v ranks="$ranks" '
      { key = $1 " " $2; count[key]++; time[key, count[key]] = $3; size[$2] = $2 }
      function text(key, n) {
        n = count[key]
        median[key] = (time[key, int((n + 1) / 2)] + time[key, int(n / 2) + 1]) / 2
        return sprintf("%.1f (%.1f-%.1f)", median[key], time[key, 1], time[key, n])
      }
      END {
        for (bytes in size) {
          ours = text("cachalot " bytes); theirs = text("mpi " bytes)
          printf "%-10s %5d %9d %28s %28s %6.2f\n", collective, ranks, bytes, ours, theirs,
                 median["cachalot " bytes] / median["mpi " bytes]
        }
      }' | sort -k3,3n
  done
done
