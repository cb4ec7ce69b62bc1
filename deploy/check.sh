#!/usr/bin/env bash
# Tries what an operator installs: dashboards, alerts, images, the package,
# replicas, charts. Installs what it needs on a Debian 12 machine (root or
# sudo), builds the server unless QK_BIN names a folder that has qkscoped and
# qkctl, and prints a table of what really ran.
#
#   bash deploy/check.sh               the quick rows
#   bash deploy/check.sh --full        all rows
#   bash deploy/check.sh docker deb    these rows alone
#
# A row is a file tests/deploy/NAME_check.sh or NAME_check.py. Its line
# `# row: TITLE | run or schema | quick or full | SECONDS` says what it is.
# Nothing that a row starts outlives it.
set -euo pipefail
cd "$(dirname "$0")/.."

rows_at_once=2
full=0
chosen=()
for argument in "$@"; do
  case $argument in
    --full) full=1 ;;
    -*) echo "usage: check.sh [--full] [ROW...]" >&2; exit 2 ;;
    *) chosen+=("$argument") ;;
  esac
done

started=$SECONDS
step() { printf '%4d s  %s\n' $((SECONDS - started)) "$1"; }

# The field of a row: 1 its title, 2 run or schema, 3 quick or full, 4 seconds.
field() {
  sed -nE '1,20s/^# row: *//p' "$1" | awk -F ' *[|] *' -v n="$2" '{print $n}'
}

# The name of a row's file.
name_of() {
  local name=${1##*/}
  printf '%s' "${name%_check.*}"
}

files=()
left_out=()
for file in tests/deploy/*_check.sh tests/deploy/*_check.py; do
  [[ -e "$file" ]] || continue
  if [[ ! "$(field "$file" 2) $(field "$file" 3)" =~ ^(run|schema)\ (quick|full)$ ]]; then
    echo "check.sh: $file does not say what row it is" >&2
    exit 2
  fi
  name=$(name_of "$file")
  if ((${#chosen[@]} > 0)); then
    if [[ " ${chosen[*]} " == *" $name "* ]]; then
      files+=("$file")
    else
      left_out+=("$file")
    fi
  elif ((full)) || [[ "$(field "$file" 3)" == quick ]]; then
    files+=("$file")
  else
    left_out+=("$file")
  fi
done
if ((${#chosen[@]} > 0 && ${#files[@]} != ${#chosen[@]})); then
  echo "check.sh: no such row among: ${chosen[*]}" >&2
  exit 2
fi

step "Packages"
purpose=deploy
for file in ${files[@]+"${files[@]}"}; do
  [[ "$(field "$file" 3)" == quick ]] || purpose=deploy_full
done
bash deploy/install_deps.sh "$purpose"
bash tests/deploy/make_venv.sh
export QK_PYTHON=$PWD/build/deploy-venv/bin/python
QKSCOPE_DEMO_MODEL=$(bash deploy/fetch_model.sh)
export QKSCOPE_DEMO_MODEL
if [[ -z "${QK_BIN:-}" ]]; then
  step "Build"
  cmake --preset release -DQK_SMOLLM2_GGUF="$QKSCOPE_DEMO_MODEL" >/dev/null
  cmake --build --preset release --parallel 2 --target packaged
  QK_BIN=$PWD/build/release/bin
fi
QK_BIN=$(realpath "$QK_BIN")
export QK_BIN
work=$(mktemp -d)
export QK_ROOT_TAR=$PWD/build/deploy/root.tar
mkdir -p build/deploy
step "Debian root"
bash tests/deploy/make_root.sh "$QK_ROOT_TAR"

# Runs a row and writes its exit status and seconds to $work/NAME.result.
run_row() {
  local file=$1 name began=$SECONDS status=0 row
  name=$(name_of "$file")
  export QK_WORK=$work/$name
  mkdir "$QK_WORK"
  case $file in
    *.py) row=("$QK_PYTHON" -B "$file") ;;
    *) row=(bash "$file") ;;
  esac
  "${row[@]}" >"$work/$name.log" 2>&1 </dev/null || status=$?
  echo "$status $((SECONDS - began))" >"$work/$name.result"
  rm -rf --one-file-system "$QK_WORK"
}

stop() {
  local jobs
  jobs=$(jobs -p)
  for job in $jobs; do
    pkill -TERM -P "$job" 2>/dev/null || true
  done
  wait
  rm -rf --one-file-system "$work"
}
trap stop EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

step "${#files[@]} rows, $rows_at_once at a time"
# The longest first, so that no long row is left for the end.
mapfile -t files < <(for file in ${files[@]+"${files[@]}"}; do
  printf '%s %s\n' "$(field "$file" 4)" "$file"
done | sort -k1,1 -rn | cut -d' ' -f2-)
for file in ${files[@]+"${files[@]}"}; do
  while (($(jobs -rp | wc -l) >= rows_at_once)); do wait -n || true; done
  run_row "$file" &
done
wait

failed=0
line() { printf '%-13s %-58s %5s  %s\n' "$@"; }
print_table() {
  line RESULT ROW SECS COMMAND
  local file name status seconds result how
  for file in ${files[@]+"${files[@]}"}; do
    name=$(name_of "$file")
    read -r status seconds <"$work/$name.result"
    how="really run"
    [[ "$(field "$file" 2)" == run ]] || how="schema only"
    case $status in
      0) result=$how ;;
      77) result="not run here" ;;
      *)
        result=FAILED failed=1
        # Above the table.
        printf '\n== %s failed (%s). The end of its output:\n' "$name" \
          "$status" >&2
        tail -60 "$work/$name.log" >&2
        ;;
    esac
    line "$result" "$(field "$file" 1)" "$seconds" "deploy/check.sh $name"
    [[ "$status" != 77 ]] || line "" "  $(tail -1 "$work/$name.log")" "" ""
  done
  for file in ${left_out[@]+"${left_out[@]}"}; do
    name=$(name_of "$file")
    line "left out" "$(field "$file" 1)" "" "deploy/check.sh $name"
  done
}
print_table >"$work/table"
cat "$work/table"
step "Done"
exit "$failed"
