#!/usr/bin/env bash
# The checks that take longer than tests/run.sh, which runs first. Needs root or
# sudo for missing packages, and the registries of Debian and PyPI.
#
#   bash tests/check.sh             all of them
#   bash tests/check.sh tsan tidy   these alone
#
# Prints a summary, and fails if one of them has failed.
set -euo pipefail
cd "$(dirname "$0")/.."

checks=(thread_safety tidy tsan asan planted_bugs gpu_parcel python bridges)

# clang's analysis of the locks of server/ and client/: every file of theirs is
# compiled, nothing is linked.
thread_safety() {
  cmake --preset thread-safety
  ninja -C build/thread-safety -t targets all |
    sed -nE 's/^((server|client)\/.*\.o): .*/\1/p' |
    xargs ninja -C build/thread-safety -j 2
}

# clang-tidy, with the checks of .clang-tidy. The two libraries are what makes
# the generated headers.
tidy() {
  cmake --preset thread-safety
  cmake --build --preset thread-safety --parallel 2 \
    --target qk_proto qk_health_proto
  run-clang-tidy-14 -quiet -p build/thread-safety -j 2 \
    "^$PWD/(engine|server|client|tests)/.*\.cc\$"
}

# The scheduler, the queues and the pool of threads under ThreadSanitizer.
tsan() {
  cmake --preset tsan
  cmake --build --preset tsan --parallel 2 --target tests_threads
  ctest --preset tsan --parallel 2 --label-regex '^threads$'
}

# The tests under AddressSanitizer and UndefinedBehaviorSanitizer. Left out: the
# second runs of the engine's suite over the emulation, which take an hour there
# (kernels have tests of their own, with small cases), and four that bound the
# server's resident memory, of which the sanitizer's own is the larger part.
asan() {
  bash tests/make_venv.sh
  bash tests/python/make_venv.sh
  QKSCOPE_DEMO_MODEL=$(bash deploy/fetch_model.sh)
  export QKSCOPE_DEMO_MODEL
  cmake --preset asan -DQK_SMOLLM2_GGUF="$QKSCOPE_DEMO_MODEL"
  cmake --build --preset asan --parallel 2
  # Freed memory that waits to be watched counts as the server's, too.
  ASAN_OPTIONS=quarantine_size_mb=16 ctest --preset asan --parallel 2 \
    --exclude-regex \
    '_emulated_cuda$|^e2e_(reliability|long_run|soak|mixed_soak)_test$'
}

# The tests of the CUDA kernels find bugs that are planted in the kernels.
planted_bugs() {
  local preset
  for preset in release asan tsan; do
    cmake --preset "$preset"
    cmake --build --preset "$preset" --parallel 2 --target tests_cuda
  done
  python3 -B tests/cuda/planted_bugs.py build/release build/asan build/tsan
}

# The parcel for a machine with a GPU: it builds, is complete and small, and its
# tests pass here on the CPU, in a copy of the tree that lies elsewhere.
gpu_parcel() {
  nvcc --version 2>/dev/null | grep -q 'release 13\.' ||
    bash tests/cuda/make_venv.sh
  bash tests/gpu/pack.sh
  local copy
  copy=$(mktemp -d)
  trap "rm -rf '$copy'" EXIT
  git archive HEAD tests | tar -x -C "$copy"
  mkdir "$copy/build"
  cp build/gpu.tar.xz "$copy/build/"
  bash "$copy/tests/gpu/run.sh" "$copy/out"
  cat "$copy/out/report.md"
  local test
  for test in golden_test disruption_test generation_test; do
    (cd "$copy" && QK_TEST_BACKEND=cpu "build/gpu/bin/$test" --gtest_brief=1)
  done
}

# The Python package: its types, its wheel, and its tests with the oldest and
# the newest versions of what it needs, on the Pythons that are here.
python() {
  QKSCOPE_DEMO_MODEL=$(bash deploy/fetch_model.sh)
  export QKSCOPE_DEMO_MODEL
  cmake --preset release -DQK_SMOLLM2_GGUF="$QKSCOPE_DEMO_MODEL"
  cmake --build --preset release --parallel 2 --target qkscoped qkctl
  python3 -B tests/python/package_check.py
  QK_BIN_DIR=$PWD/build/release/bin python3 -B tests/python/versions.py
}

# The bridges to lm-eval, Inspect, TransformerLens and nnsight, with these tools.
bridges() {
  cmake --preset release
  cmake --build --preset release --parallel 2 --target qkscoped qkctl
  QK_BIN_DIR=$PWD/build/release/bin bash tests/python/check_bridges.sh
}

usage() {
  echo "usage: check.sh [CHECK...], of: ${checks[*]}" >&2
  exit 2
}

chosen=("$@")
(($# > 0)) || chosen=("${checks[@]}")
for check in "${chosen[@]}"; do
  [[ " ${checks[*]} " == *" $check "* ]] || usage
done
bash deploy/install_deps.sh check

summary=()
failed=0
for check in "${chosen[@]}"; do
  echo "== $check"
  started=$SECONDS
  # A function in a condition would go on after a failed command of its own.
  set +e
  (set -e; "$check")
  status=$?
  set -e
  result=passed
  if ((status != 0)); then
    result=FAILED
    failed=1
  fi
  summary+=("$(printf '%-14s %-7s %5d s' "$check" "$result" \
    $((SECONDS - started)))")
done
printf '%s\n' "== Summary" "${summary[@]}"
exit "$failed"
