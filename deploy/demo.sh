#!/usr/bin/env bash
# Shows the massive values of a real language model on a fresh Debian 12:
# installs missing packages, builds, fetches SmolLM2-135M-Instruct, starts a
# server on free loopback ports, shows an analysis, replays it and stops the
# server.
#
#   bash deploy/demo.sh                      (root, or sudo)
#   QKSCOPE_DEMO_MODEL=FILE.gguf bash deploy/demo.sh
set -euo pipefail
cd "$(dirname "$0")/.."

prompt="The city of Paris lies on the river Seine, and the tower that \
everybody knows was built there for a great world fair."
bin=build/release/bin

say() { printf '\n== %s\n' "$*"; }

bash deploy/install_deps.sh

say "Building (the first build takes minutes)"
mkdir -p build/release
if ! cmake --preset release >build/release/configure.log 2>&1; then
  cat build/release/configure.log >&2
  exit 1
fi
cmake --build --preset release --target qkscoped qkctl

model=$(bash deploy/fetch_model.sh)

work=$(mktemp -d)
server=
finish() {
  if [[ -n "$server" ]]; then
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  rm -rf "$work"
}
trap finish EXIT

# Prints the address in the "listening" line of the server's log, if the line
# exists yet.
address() {
  python3 - "$work/server.log" <<'PYTHON'
import json
import sys

for line in open(sys.argv[1], encoding="utf-8"):
    try:
        entry = json.loads(line)
    except ValueError:
        continue  # Not a log line, or a partial one.
    if entry.get("event") == "listening":
        print(entry["listen"])
PYTHON
}

say "Starting the server with $(basename "$model")"
"$bin/qkscoped" --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 \
  --model "demo=$model" 2>"$work/server.log" &
server=$!
export QKSCOPE_SERVER=
until [[ -n "$QKSCOPE_SERVER" ]] &&
      "$bin/qkctl" health --model demo --wait 1 >/dev/null 2>&1; do
  if ! kill -0 "$server" 2>/dev/null; then
    printf '\nThe server did not start:\n' >&2
    cat "$work/server.log" >&2
    exit 1
  fi
  printf '.'
  sleep 0.1
  QKSCOPE_SERVER=$(address)
done
echo " listening on $QKSCOPE_SERVER"

say "qkctl analyze --prompt '$prompt' --arm clean --arm top_k:1 --arm bottom_k:1"
"$bin/qkctl" analyze --model demo --prompt "$prompt" \
  --arm clean --arm top_k:1 --arm bottom_k:1 \
  --explain --manifest "$work/manifest.json"

say "qkctl replay manifest.json"
"$bin/qkctl" replay "$work/manifest.json"

say "Stopping the server"
kill "$server"
wait "$server" || true
server=
