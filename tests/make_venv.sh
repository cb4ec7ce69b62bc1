#!/usr/bin/env bash
# Makes build/venv with the packages of tests/requirements.txt, unless it is
# there: Python's packages stay in the build folder, not in the system.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=build/venv
if ! cmp --silent tests/requirements.txt "$venv/requirements.txt"; then
  python3 -m venv --clear "$venv"
  "$venv/bin/python" -m pip --quiet --disable-pip-version-check \
    install --requirement tests/requirements.txt
  cp tests/requirements.txt "$venv/requirements.txt"
fi
