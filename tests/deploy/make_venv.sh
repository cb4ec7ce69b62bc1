#!/usr/bin/env bash
# Makes build/deploy-venv with the packages of tests/deploy/requirements.txt,
# unless it is there.
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=build/deploy-venv
if ! cmp --silent tests/deploy/requirements.txt "$venv/requirements.txt"; then
  python3 -m venv --clear "$venv"
  "$venv/bin/python" -m pip --quiet --disable-pip-version-check \
    install --requirement tests/deploy/requirements.txt
  cp tests/deploy/requirements.txt "$venv/requirements.txt"
fi
