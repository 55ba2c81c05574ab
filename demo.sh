#!/usr/bin/env bash
# Builds Cachalot, starts the built-in model as a cluster on this machine (two replicas with two ranks each and the router),
# shows where its ranks are, asks it a question and streams the answer; then keeps serving until Ctrl-C.
#   ./demo.sh                the demo (without a terminal it ends after the answer)
#   ./demo.sh --build-only   stops after the build: build/release/bin/cachalot
#   PORT=9000 ./demo.sh      another port (8002)
# In an unpacked release it builds nothing, and takes the program that is there.
set -euo pipefail
cd "$(dirname "$0")"

case "${1:-}" in
  "" | --build-only) ;;
  --help | -h) sed -n '2,7p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
  *) echo "demo.sh: $1 is not an option; see ./demo.sh --help" >&2; exit 2 ;;
esac
cachalot=bin/cachalot
if [ ! -x "$cachalot" ]; then
  scripts/build.sh release cachalot
  cachalot=build/release/bin/cachalot
fi
[ "${1:-}" != --build-only ] || exit 0

port=${PORT:-8002}
question='Which one is larger? 3.8 or 3.11'
log=$(mktemp)
"$cachalot" up --port "$port" >"$log" 2>&1 &
cluster=$!
trap 'kill "$cluster" 2>/dev/null || true; wait "$cluster" 2>/dev/null || true; rm -f "$log"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

for _ in $(seq 600); do
  ! grep -q '^ready: ' "$log" || break
  kill -0 "$cluster" 2>/dev/null || {
    echo "The cluster did not start:" >&2
    cat "$log" >&2
    ! grep -q 'cannot be listened on' "$log" || echo "PORT=9000 ./demo.sh takes another port." >&2
    exit 1
  }
  sleep 0.1
done
grep -q '^ready: ' "$log" || { echo "The cluster is not ready after a minute:" >&2; cat "$log" >&2; exit 1; }
printf '\n'
sed '/^ready: /,$d' "$log" # the map of its ranks

printf 'The built-in model (R1'\''s architecture, 4 million parameters) is asked: %s\n\n' "$question"
"$cachalot" chat --url "http://127.0.0.1:$port" --temperature 0 --prompt "$question"

cat <<TEXT

It serves OpenAI's API at http://127.0.0.1:$port/v1, and \`$cachalot status\` shows its ranks and their load.
Try in another terminal:

  $cachalot chat --url http://127.0.0.1:$port

  curl http://127.0.0.1:$port/v1/completions -H 'Content-Type: application/json' \\
    -d '{"model": "models/nano", "prompt": "$question", "max_tokens": 1024, "temperature": 0}'

TEXT
[ -t 0 ] && [ -t 1 ] || exit 0
echo "Ctrl-C stops the cluster."
wait "$cluster"
