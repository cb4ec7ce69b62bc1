#!/usr/bin/env bash
# Proves and measures the CUDA backend on a machine with a GPU, from the parcel
# that pack.sh has made, in two calls of at most ten minutes:
#
#   bash tests/gpu/run.sh OUT a    numbers, bytes, ceilings, cuBLASLt's verdicts
#   bash tests/gpu/run.sh OUT b    speed, transformers, sanitizers, the service
#
# Writes OUT/report.md as it goes (b appends) and OUT/logs.txt, all that the
# stages printed. Each stage has a limit of its own, and the most valuable come
# first: one that fails or hangs costs itself only. Exits with 1 if a stage
# failed. Without a GPU the report says so, and the exit status is 0.
#
# QK_GPU_PARCEL: where the parcel lies (build/gpu; unpacked from
# build/gpu.tar.xz if it is not there). QK_GPU_SECONDS: for all stages after the
# facts (540).
# QK_GPU_LOADER=1: use the parcel's own glibc even if the machine's is new.
set -uo pipefail
if (($# < 1 || $# > 2)) || [[ ! "${2:-a}" =~ ^[ab]$ ]]; then
  echo "usage: run.sh OUT [a|b]" >&2
  exit 2
fi
mkdir -p "$1" && out=$(cd "$1" && pwd) || exit 2
call=${2:-a}
cd "$(dirname "$0")/../.." || exit 2

parcel=$(realpath -m "${QK_GPU_PARCEL:-build/gpu}")
seconds=${QK_GPU_SECONDS:-540}
export PATH="$PATH:/usr/local/nvidia/bin:/usr/local/cuda/bin"
report=$out/report.md
logs=$out/logs.txt
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
loader=()
summary=()
failed=0
[[ "$call" == b ]] || : >"$report"
[[ "$call" == b ]] || : >"$logs"

say() { printf '%s\n' "$@" >>"$report"; }

# The last lines of a log, as text or as the tables that it holds.
show() {
  local how=$1 log=$2
  if [[ "$how" == tables ]]; then
    tail -n 400 "$log" >>"$report"
  else
    say '```'
    tail -n "$how" "$log" | cut -c 1-300 >>"$report"
    say '```'
  fi
}

# stage NAME LIMIT HOW COMMAND...: runs the command; HOW: tables, or the number
# of its last lines that the report gets.
stage() {
  local name=$1 limit=$2 how=$3
  shift 3
  local left=$((seconds - SECONDS)) began=$SECONDS status result
  if ((left < 3)); then
    result="not run: no time was left"
    failed=1
    say "" "## $name" "" "$result"
    summary+=("| $name | $result | |")
    return
  fi
  ((limit <= left)) || limit=$left
  say "" "## $name" ""
  timeout -k 5 "$limit" "$@" >"$scratch/log" 2>&1 </dev/null
  status=$?
  case $status in
    0) result=passed ;;
    124 | 137) result="FAILED: not done after $limit s" ;;
    *) result="FAILED: status $status" ;;
  esac
  ((status == 0)) || failed=1
  ((status == 0)) || [[ "$how" == tables ]] || how=60
  say "$result, $((SECONDS - began)) s" ""
  show "$how" "$scratch/log"
  { echo "=== $name: $result"; cat "$scratch/log"; } >>"$logs"
  summary+=("| $name | $result | $((SECONDS - began)) s |")
}

# test_stage NAME LIMIT PROGRAM [FLAG...]: a program of the parcel.
test_stage() {
  local name=$1 limit=$2 program=$3
  shift 3
  stage "$name" "$limit" 6 "${loader[@]}" "$parcel/bin/$program" "$@"
}

skip() {
  say "" "## $1" "" "not run: $2"
  summary+=("| $1 | not run: $2 | |")
}

facts() {
  date -u
  uname -srm
  local wanted='(Driver|CUDA) Version|Product Name|UUID|MIG Mode|  Total'
  wanted+='|Power Limit|Persistence|Graphics  '
  nvidia-smi -q 2>&1 | grep -E "$wanted" ||
    echo "nvidia-smi: nothing"
  ldd --version 2>&1 | head -n 1
  for tool in nvcc compute-sanitizer ncu python3; do
    command -v "$tool" || echo "no $tool"
  done
  timeout 20 find / -xdev \( -path /proc -o -path /sys \) -prune -o \
    -name 'libcublasLt.so*' -print 2>/dev/null | tee "$1"
  df -h . | tail -n 1
  free -g | sed -n 2p
  return 0
}

# Unpacks the parcel unless that very one is unpacked.
unpack() {
  [[ -f "$parcel.tar.xz" ]] || return 0
  local sum
  sum=$(cksum <"$parcel.tar.xz")
  [[ "$sum" != "$(cat "$parcel/unpacked" 2>/dev/null)" ]] || return 0
  rm -rf "$parcel"
  mkdir -p "$parcel"
  {
    if command -v xz >/dev/null; then
      xz -dc "$parcel.tar.xz"
    else
      python3 -c 'import lzma, shutil, sys
shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer)' "$parcel.tar.xz"
    fi
  } | tar -C "$parcel" --strip-components=1 -xf - >>"$logs" 2>&1 &&
    echo "$sum" >"$parcel/unpacked" || rm -rf "$parcel"
}

# Whether programs of the parcel start; chooses its loader if only that helps.
choose_loader() {
  local own=("$parcel/lib/glibc/ld-linux-x86-64.so.2" --library-path
    "$parcel/lib/glibc:$parcel/lib:${LD_LIBRARY_PATH:-}")
  if [[ -z "${QK_GPU_LOADER:-}" ]]; then
    "$parcel/bin/qkctl" --help >/dev/null 2>"$scratch/error" && return 0
  fi
  loader=("${own[@]}")
  "${loader[@]}" "$parcel/bin/qkctl" --help >/dev/null 2>>"$scratch/error"
}

# cuBLASLt from where the facts have found it, and nothing else from there.
use_cublaslt() {
  mkdir -p "$scratch/cublaslt"
  local file
  file=$(grep 'libcublasLt\.so\.13$' "$scratch/found" | head -n 1)
  [[ -z "$file" ]] || ln -s "$file" "$scratch/cublaslt/"
  export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$scratch/cublaslt"
}

call_a() {
  test_stage "The runtime, cuBLASLt, NVML" 60 cuda_no_device_test
  test_stage "auto takes the GPU" 20 create_backend_test
  test_stage "Ops against loops in double precision" 90 backend_conformance_test
  test_stage "Goldens" 90 golden_test
  test_stage "Disruption" 60 disruption_test
  export QK_TEST_BACKEND=cuda-auto
  test_stage "Products where cuBLASLt passes its probe" 60 \
    backend_conformance_test '--gtest_filter=*MatMulTest*-*OddSizes*:*EveryRowCount*'
  test_stage "Goldens, with cuBLASLt" 60 golden_test
  export QK_TEST_BACKEND=cuda
  test_stage "Generation" 40 generation_test
  test_stage "The same bytes: batches, cancellation, tiles" 90 identity_test
  test_stage "The same bytes: sizes of 135M, 1B, 7B, 8B" 150 shapes_identity_test
  export QK_TEST_BACKEND=cuda-auto
  test_stage "The same bytes, with cuBLASLt" 120 shapes_identity_test
  export QK_TEST_BACKEND=cuda
  test_stage "The same bytes: every family" 90 families_identity_test
  stage "Ceilings, and cuBLASLt's verdicts" 150 tables \
    "${loader[@]}" "$parcel/bin/cuda_bench" ceilings probe
}

sanitizers() {
  local tool few=$1
  for tool in memcheck racecheck synccheck initcheck; do
    stage "compute-sanitizer $tool" 45 12 compute-sanitizer --tool "$tool" \
      --target-processes all --error-exitcode 9 \
      "${loader[@]}" "$parcel/bin/backend_conformance_test" "--gtest_filter=$few"
  done
}

call_b() {
  stage "The service" 40 20 bash tests/gpu/service.sh cuda \
    "${loader[@]}" "$parcel/bin"
  stage "Ceilings and ops" 120 tables \
    "${loader[@]}" "$parcel/bin/cuda_bench" ceilings ops
  stage "Passes, own matmul" 110 tables \
    "${loader[@]}" "$parcel/bin/cuda_bench" passes
  stage "Passes, cuBLASLt where its probe passes" 110 tables \
    "${loader[@]}" "$parcel/bin/cuda_bench" --backend cuda-auto passes
  cp "$scratch/log" "$scratch/passes"
  if python3 -c 'import torch, transformers' 2>/dev/null; then
    stage "transformers, on the same sizes" 120 tables \
      python3 -B tests/gpu/transformers_times.py --ours "$scratch/passes"
  else
    skip transformers "python3 has no torch and transformers"
  fi
  local few='*RmsNorm*1_thread:*Rope*1_thread:*AppendKv*1_thread'
  few+=':*FreshPages*1_thread:*LargeScores*1_thread:*AddMoments*1_thread'
  few+=':*SelectDimsValues*1_thread:*ReplaceDims*1_thread'
  few+=':*TopLogits*1_thread:*SelectiveScan*1_thread:*RouteExperts*1_thread'
  few+=':*RowsAreGrouped*1_thread'
  few+=':*ProductsDoNotTouchEachOther*_1'
  few+=':StoredWeightsTest.*'
  if command -v compute-sanitizer >/dev/null; then
    sanitizers "$few"
  else
    skip compute-sanitizer "it is not here"
  fi
  if command -v ncu >/dev/null; then
    stage "ncu: the kernels of a pass" 80 400 ncu --clock-control none \
      --section SpeedOfLight --launch-skip 30 --launch-count 24 \
      -k 'regex:MatMul|AddSlices|Attention|Combine|Norm|Element|Rope|Append|Moments' \
      "${loader[@]}" "$parcel/bin/cuda_bench" --model Llama-1B passes
  else
    skip ncu "it is not here"
  fi
}

finish() {
  say "" "## Stages of call $call" "" "| stage | result | time |" "|---|---|---|" \
    "${summary[@]}"
  echo "run.sh: $report" && exit "$failed"
}

say "" "# Call $call, $(date -u +'%F %T') UTC"
stage "Facts" 40 40 bash -c "$(declare -f facts); facts $scratch/found"
SECONDS=0
if ! nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
  say "" "**no GPU**: nvidia-smi shows none, so nothing was proved here."
fi
unpack
if [[ ! -x "$parcel/bin/qkctl" ]]; then
  say "" "There is no parcel at ${QK_GPU_PARCEL:-build/gpu}: see tests/gpu/pack.sh."
  nvidia-smi -L 2>/dev/null | grep -q '^GPU' && failed=1
  finish
fi
if ! choose_loader; then
  say "" "No program of the parcel starts:" "$(head -c 2000 "$scratch/error")"
  failed=1
  finish
fi
((${#loader[@]} == 0)) || say "" "Programs run with the parcel's own glibc."
export QK_TEST_BACKEND=cuda
if ! nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
  test_stage "The runtime, cuBLASLt, NVML" 60 cuda_no_device_test
  test_stage "auto takes the CPU" 20 create_backend_test
  stage "The service, on the CPU" 40 20 bash tests/gpu/service.sh cpu \
    "${loader[@]}" "$parcel/bin"
  finish
fi
use_cublaslt
"call_$call"
finish
