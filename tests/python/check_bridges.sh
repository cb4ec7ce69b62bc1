#!/usr/bin/env bash
# Runs the tests of the bridges to lm-eval, Inspect, TransformerLens and nnsight,
# with those tools, in build/bridges-venv (some 8 GB, because torch is in it).
#
#   QK_BIN_DIR=build/release/bin bash tests/python/check_bridges.sh [TEST...]
#
# TEST: of lm_eval, inspect, lens, coming_from; default all. QK_BRIDGES_VENV: a
# virtual environment that has it all.
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=${QK_BRIDGES_VENV:-build/bridges-venv}
list=tests/python/bridge_requirements.txt
if [[ -z ${QK_BRIDGES_VENV:-} ]] &&
  ! cmp --silent "$list" "$venv/requirements.txt"; then
  python3 -m venv --clear "$venv"
  "$venv/bin/python" -m pip --quiet --disable-pip-version-check \
    install --requirement "$list"
  cp "$list" "$venv/requirements.txt"
fi
# Its entry point is how Inspect finds it.
"$venv/bin/python" -m pip --quiet --disable-pip-version-check \
  install --no-deps --force-reinstall ./client/python

tests=("$@")
((${#tests[@]} > 0)) || tests=(lens inspect coming_from lm_eval)
failed=()
for test in "${tests[@]}"; do
  printf '%s test_%s\n' "$(date +%T)" "$test"
  PYTHONPATH=tests/e2e "$venv/bin/python" -B "tests/python/test_$test.py" ||
    failed+=("$test")
done
if ((${#failed[@]} > 0)); then
  printf 'failed: %s\n' "${failed[*]}" >&2
  exit 1
fi
