#!/usr/bin/env bash
# Makes build/python-venv with the packages of tests/python/requirements.txt,
# unless it is there. client/python itself is found through PYTHONPATH.
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=build/python-venv
if ! cmp --silent tests/python/requirements.txt "$venv/requirements.txt"; then
  python3 -m venv --clear "$venv"
  "$venv/bin/python" -m pip --quiet --disable-pip-version-check \
    install --requirement tests/python/requirements.txt
  cp tests/python/requirements.txt "$venv/requirements.txt"
fi
