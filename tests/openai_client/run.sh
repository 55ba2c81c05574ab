#!/usr/bin/env bash
# Drives a server with the official clients for Python, openai's and anthropic's.
#   run.sh --url http://host:8000/v1 [--api-key KEY]      a server that runs already
#   run.sh --binary build/release/bin/cachalot [--model DIR]   starts one of its own
# The clients live in a virtual environment, made once under $OPENAI_CLIENT_VENV (default: build/openai_client_venv).
# Exit status 77, "skipped", where it cannot be made: no python3-venv, or no way to PyPI.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
url="" key="" binary="" model=$root/models/nano
while [ $# -gt 0 ]; do
  case "$1" in
    --url) url=$2 ;;
    --api-key) key=$2 ;;
    --binary) binary=$2 ;;
    --model) model=$2 ;;
    *) sed -n '2,6p' "$0" >&2; exit 2 ;;
  esac
  shift 2
done
[ -n "$url$binary" ] || { echo "run.sh: give --url or --binary" >&2; exit 2; }

venv=${OPENAI_CLIENT_VENV:-$root/build/openai_client_venv}
if ! cmp -s "$here/requirements.txt" "$venv/requirements.txt"; then
  if ! { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"; }; then
    echo "run.sh: skipped: the clients cannot be installed" >&2
    exit 77
  fi
  cp "$here/requirements.txt" "$venv/requirements.txt"
fi

if [ -n "$binary" ]; then
  key=sesame
  log=$(mktemp)
  "$binary" serve --model "$model" --host 127.0.0.1 --port 0 --api-key "$key" \
    --tool-call-parser deepseek_v31 >"$log" 2>&1 &
  server=$!
  trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true; rm -f "$log"' EXIT
  for _ in $(seq 600); do
    url=$(sed -n 's|.*ready: \(http://[^ ,]*\).*|\1|p' "$log")
    [ -n "$url" ] && break
    kill -0 $server 2>/dev/null || { cat "$log" >&2; exit 1; }
    sleep 0.1
  done
  [ -n "$url" ] || { echo "run.sh: the server is not ready after a minute" >&2; cat "$log" >&2; exit 1; }
fi

status=0
OPENAI_BASE_URL=$url OPENAI_API_KEY=${key:-none} "$venv/bin/python" "$here/drive.py" || status=$?
[ $status -eq 0 ] || [ -z "$binary" ] || cat "$log" >&2
exit $status
