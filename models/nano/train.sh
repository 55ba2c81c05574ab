#!/usr/bin/env bash
# Makes the built-in model from nothing but a seed: tokenizer, weights, questions, golden ids, int4 weights.
#   models/nano/train.sh [--out DIR]    DIR: models/nano
# Four stages, 80 to 110 minutes each of one quiet core with AVX-512; uses a GPU where there is one. Stopped, it goes on where
# it was when it is started again: its state and its Python environment are in build/nano_training. Without a GPU it takes
# Debian's python3-torch with OpenBLAS, which was a third faster than PyPI's torch on one core of an AMD EPYC.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=models/nano
case "${1:-}" in
  "") ;;
  --out) out=$2 ;;
  *) sed -n '2,7p' "$0" | sed 's/^# \{0,1\}//'; exit 2 ;;
esac
training=models/nano/training
state=build/nano_training
venv=$state/venv

if [ ! -x "$venv/bin/python" ]; then
  mkdir -p "$state"
  if nvidia-smi >/dev/null 2>&1; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet -r $training/requirements_gpu.txt
  else
    /usr/bin/python3 -c 'import torch' 2>/dev/null || apt-get install -y python3-torch python3-venv libopenblas0-pthread
    /usr/bin/python3 -m venv --system-site-packages "$venv"
  fi
  "$venv/bin/pip" install --quiet -r $training/requirements.txt
fi

# One thread is faster than two on matrices of this size. glibc gives large tensors back to the system at once, and
# fetching them again costs a fifth of the time.
export OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000
export MALLOC_TOP_PAD_=268435456 PYTHONDONTWRITEBYTECODE=1
if grep -q avx512dq /proc/cpuinfo; then export OPENBLAS_CORETYPE=SkylakeX; fi

python() { "$venv/bin/python" "$@"; }
python $training/check_data.py
start=()
for stage in plain mixed longer everyday; do
  folder=$state/$stage
  if [ ! -e "$folder/model/model.safetensors" ]; then
    python $training/train.py --stage $stage "${start[@]}" --folder "$folder"
    python $training/checkpoint.py --state "$folder" --out "$folder/model"
    python $training/plot.py --csv "$folder/loss.csv" --out "$out/loss_$stage.svg"
  fi
  start=(--start "$folder/model")
done
cp "$folder"/model/* "$out"
python $training/questions.py --out "$out/questions.jsonl"
python $training/golden.py --model "$out"
python $training/score.py --model "$out" --questions "$out/questions.jsonl" --dialogues 40

# Of the folder only the model itself: quantize copies everything else that it finds. CACHALOT names another build's.
cachalot=${CACHALOT:-build/release/bin/cachalot}
[ -x "$cachalot" ] || scripts/build.sh release cachalot
plain=$(mktemp -d)
trap 'rm -rf "$plain"' EXIT
cp "$out"/model.safetensors "$out"/{config,generation_config,tokenizer,tokenizer_config}.json "$plain"
rm -rf "$out-awq"
"$cachalot" quantize --model "$plain" --out "$out-awq" --quant awq
