#!/usr/bin/env bash
# slurm_job.sh CACHALOT MODEL [...]: deploy/slurm.sbatch as a job of the Slurm that tests/cluster/in_namespaces.sh has made: it is
# checked, comes up, answers, drains when it is told to end, and leaves nothing. Further flags are those of that script's
# other users.
set -euo pipefail
cachalot=$(realpath "$1") model=$(realpath "$2")
script=$(realpath "$(dirname "$0")/../../deploy/slurm.sbatch")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() { echo "slurm_job.sh: $*"; cat "$work"/cachalot-*.out "$work"/*/logs/*.log 2>/dev/null || true; exit 1; }
wait_for() {  # SECONDS WHAT COMMAND...
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || fail "$what does not come"
    sleep 0.3
  done
}
ended() { [[ -z $(squeue -h -j "$job" -o %T 2>/dev/null) ]]; }

export CACHALOT=$cachalot CACHALOT_SERVE_FLAGS
CACHALOT_SERVE_FLAGS=$'  threads: 1\n  num-gpu-blocks-override: 256\n  max-model-len: 2048'
job=$(sbatch --parsable --nodes=4 --output="$work/cachalot-%j.out" "$script" "$model" 2 2)
wait_for 90 "an API that is ready" grep -q '^ready: ' "$work/cachalot-$job.out"
grep -q 'links, from row to column' "$work/cachalot-$job.out" || fail "the job does not check its nodes"
answer=$(timeout 60 "$cachalot" chat --url http://10.78.0.1:8002/v1 --temperature 0 --prompt 'Which one is larger? 3.8 or 3.11')
[[ $answer == *'3.8 is larger'* ]] || fail "the answer is: $answer"
scancel --batch --signal=TERM "$job"
wait_for 40 "the job's end" ended
for log in "$work"/cachalot-"$job"-*/logs/replica?.log; do grep -q 'stopped$' "$log" || fail "$log tells of no orderly end"; done
