#!/usr/bin/env bash
# Runs the suite beside other work, as often as is said, and reports how often
# each test failed. It uses what tests/run.sh has built.
#
#   bash tests/stress.sh ROUNDS [-jN] [--pinned] [CTEST_ARGUMENTS...]
#
#   bash tests/stress.sh 10 -j2          10 times, two tests at a time, beside
#   bash tests/stress.sh 3 -j4           four processes that only compute
#   bash tests/stress.sh 3 --pinned      all of it on one core
#   bash tests/stress.sh 5 -R e2e        arguments go to ctest
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  sed -n '2,/^set/{/^#/s/^# \?//p}' "$0" >&2
  exit 2
}

[[ "${1:-}" =~ ^[1-9][0-9]*$ ]] || usage
rounds=$1
shift
parallel=2
pin=()
arguments=()
for argument in "$@"; do
  case "$argument" in
    -j[1-9]*) parallel=${argument#-j} ;;
    --pinned) pin=(taskset -c 0) ;;
    *) arguments+=("$argument") ;;
  esac
done

bash deploy/install_deps.sh stress
QKSCOPE_DEMO_MODEL=$(bash deploy/fetch_model.sh)
export QKSCOPE_DEMO_MODEL

logs=build/stress
rm -rf "$logs"
mkdir -p "$logs"
"${pin[@]}" stress-ng --quiet --cpu 4 &
load=$!
trap 'kill "$load"' EXIT

bad_rounds=0
for ((round = 1; round <= rounds; ++round)); do
  if "${pin[@]}" ctest --preset release --parallel "$parallel" \
    --output-on-failure --no-tests=error --output-junit \
    "$PWD/$logs/$round.xml" "${arguments[@]}" >"$logs/$round.log" 2>&1; then
    echo "round $round of $rounds: good"
  else
    bad_rounds=$((bad_rounds + 1))
    echo "round $round of $rounds: failures, see $logs/$round.log"
  fi
done

python3 - "$logs" <<'PYTHON'
import collections
import pathlib
import sys
import xml.etree.ElementTree

failed = collections.Counter()
for file in pathlib.Path(sys.argv[1]).glob("*.xml"):
    for case in xml.etree.ElementTree.parse(file).iter("testcase"):
        if case.get("status") not in ("run", "notrun", "disabled"):
            failed[case.get("name")] += 1
for name, count in failed.most_common():
    print(f"{count} x {name}")
PYTHON
echo "$bad_rounds of $rounds rounds failed"
((bad_rounds == 0))
