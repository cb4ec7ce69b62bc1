#!/usr/bin/env bash
# Makes build/cuda-venv with nvcc, unless it is there. CMake finds it there if
# PATH has none.
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=build/cuda-venv
if ! cmp --silent tests/cuda/requirements.txt "$venv/requirements.txt"; then
  python3 -m venv --clear "$venv"
  "$venv/bin/python" -m pip --quiet --disable-pip-version-check \
    install --requirement tests/cuda/requirements.txt
  cp tests/cuda/requirements.txt "$venv/requirements.txt"
fi
