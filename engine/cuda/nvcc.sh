#!/bin/sh
# nvcc.sh LOG COMMAND...: runs nvcc; what it prints goes to LOG and, if nvcc
# fails, to the terminal.
set -eu
log=$1
shift
if ! "$@" >"$log" 2>&1; then
  cat "$log" >&2
  rm -f "$log"
  exit 1
fi
