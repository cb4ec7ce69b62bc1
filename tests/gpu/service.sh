#!/usr/bin/env bash
# The server on a backend: a model is served, its numbers come, and its memory
# goes back when it is unloaded.
#
#   bash tests/gpu/service.sh BACKEND [LOADER...] BIN
#
# BIN: the folder of qkscoped and qkctl. LOADER: what starts them, if not the
# machine's own loader.
set -euo pipefail
cd "$(dirname "$0")/../.."
backend=$1
bin=${*: -1}
loader=("${@:2:$#-2}")
tiny=tests/goldens/tiny_llama_gqa
scratch=$(mktemp -d)
server=
end() {
  [[ -z "$server" ]] || kill "$server" 2>/dev/null || true
  rm -rf "$scratch"
}
trap end EXIT

# Bytes are in MiB, of all processes.
used() {
  if [[ "$backend" == cuda ]]; then
    nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | head -n 1
  else
    echo 0
  fi
}
ctl() {
  "${loader[@]}" "$bin/qkctl" --server "$address" --timeout 30 \
    --token-file "$scratch/token" "$@"
}

# Only an operator may unload a model, and only if the configuration says so.
echo "model_admin { enabled: true root: '$PWD/tests/goldens' }" >"$scratch/conf"
"${loader[@]}" "$bin/qkctl" user add ops --role operator \
  --users-file "$scratch/users" >"$scratch/token"
: >"$scratch/log"
"${loader[@]}" "$bin/qkscoped" --backend "$backend" --listen 127.0.0.1:0 \
  --metrics-listen 127.0.0.1:0 --users-file "$scratch/users" \
  --config "$scratch/conf" --model "tiny=$tiny" \
  --model "tiny16=$tiny,compute=bf16" 2>"$scratch/log" &
server=$!
address=
for ((i = 0; i < 150 && ${#address} == 0; ++i)); do
  kill -0 "$server" 2>/dev/null || break
  address=$(sed -nE 's/.*"event":"listening".*"listen":"([^"]*)".*/\1/p' \
    "$scratch/log" | head -n 1)
  [[ -n "$address" ]] || sleep 0.2
done
if [[ -z "$address" ]]; then
  cat "$scratch/log"
  echo "qkscoped --backend $backend does not listen"
  exit 1
fi
ctl health --wait 20
model=$(ctl models tiny)
echo "$model"
[[ "$model" == *"computed in f32 on $backend"* ]] ||
  { echo "the model is not on $backend"; exit 1; }
for model in tiny tiny16; do
  ctl analyze --model "$model" --token-ids 3,1,41,59,26,53,58,9,7,93 \
    --arm clean --arm top_k:1
done
before=$(used)
ctl model unload tiny16
ctl model unload tiny
echo "memory used on the GPU: $before MiB, after both models went $(used) MiB"
kill -TERM "$server"
status=0
wait "$server" || status=$?
server=
echo "qkscoped ended with $status; then $(used) MiB are used"
grep -E '"level":"(warn|error)"' "$scratch/log" || true
((status == 0)) || exit "$status"

# Too little memory: an error that says so, not a crash.
[[ "$backend" == cuda ]] || exit 0
timeout 15 "${loader[@]}" "$bin/qkscoped" --backend cuda --listen 127.0.0.1:0 \
  --metrics-listen 127.0.0.1:0 --device-memory 1048576 --model "tiny=$tiny" \
  2>"$scratch/log" || status=$?
echo "qkscoped with 1 MiB of the GPU ended with $status:"
grep -E '"level":"(warn|error)"' "$scratch/log"
((status < 126 && status != 0))
