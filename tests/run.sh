#!/usr/bin/env bash
# Installs what is missing, builds the release and runs every test. Needs root
# or sudo for missing packages, and the registries of Debian and PyPI.
set -euo pipefail
cd "$(dirname "$0")/.."

bash deploy/install_deps.sh tests

# Python's packages stay in the build folder, not in the system.
venv=build/venv
if ! cmp --silent tests/requirements.txt "$venv/requirements.txt"; then
  python3 -m venv --clear "$venv"
  "$venv/bin/python" -m pip --quiet --disable-pip-version-check \
    install --requirement tests/requirements.txt
  cp tests/requirements.txt "$venv/requirements.txt"
fi

QKSCOPE_DEMO_MODEL=$(bash deploy/fetch_model.sh)
export QKSCOPE_DEMO_MODEL

cmake --preset release -DQK_SMOLLM2_GGUF="$QKSCOPE_DEMO_MODEL"
cmake --build --preset release --parallel 2
ctest --preset release --parallel 2 --output-on-failure --no-tests=error "$@"
