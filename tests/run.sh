#!/usr/bin/env bash
# Installs what is missing, builds the release and runs every test; then the
# engine's tests and the fuzz corpora under AddressSanitizer and
# UndefinedBehaviorSanitizer, the engine's cross build for arm64, and an image of
# the release with docker-compose.yml, the alerts and the dashboards. Needs root
# or sudo for missing packages, and the registries of Debian and PyPI.
#
#   bash tests/run.sh             all of it
#   bash tests/run.sh -R client   only the release's tests: arguments go to ctest
#
# tests/check.sh runs the checks that take longer.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '%s %s\n' "$(date +%T)" "$1"; }

release_tests() {
  bash tests/make_venv.sh
  bash tests/python/make_venv.sh
  nvcc --version 2>/dev/null | grep -q 'release 13\.' ||
    bash tests/cuda/make_venv.sh
  QKSCOPE_DEMO_MODEL=$(bash deploy/fetch_model.sh)
  export QKSCOPE_DEMO_MODEL

  cmake --preset release -DQK_CUDA=ON -DQK_SMOLLM2_GGUF="$QKSCOPE_DEMO_MODEL"
  cmake --build --preset release --parallel 2
  ctest --preset release --parallel 2 --output-on-failure --no-tests=error "$@"
}

bash deploy/install_deps.sh tests
if (($# > 0)); then
  release_tests "$@"
  exit 0
fi

step "Format"
find engine server client tests proto \
  \( -name '*.cc' -o -name '*.cu' -o -name '*.h' -o -name '*.proto' \) -print0 |
  xargs -0 clang-format-14 --dry-run -Werror
step "Include rules"
python3 -B tests/house/include_rules.py

step "Release"
release_tests

# The server's tests under the sanitizers are in tests/check.sh: they take as
# long as all of this.
step "AddressSanitizer and UndefinedBehaviorSanitizer"
cmake --preset asan
cmake --build --preset asan --parallel 2 --target tests_memory
ctest --preset asan --parallel 2 --label-regex '^memory$'

if [[ "$(uname -m)" == x86_64 ]]; then
  step "Cross build for arm64"
  bash deploy/arm64/fetch_sysroot.sh build/arm64-sysroot
  cmake --preset arm64
  cmake --build --preset arm64 --parallel 2
fi
# The rows of deploy/check.sh that there is time for; its table names the others.
step "What operators install"
QK_BIN=$PWD/build/release/bin bash deploy/check.sh \
  docker alerts dashboards install helm sbom

step "All passed"
