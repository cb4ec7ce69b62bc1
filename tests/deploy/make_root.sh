#!/usr/bin/env bash
# Makes a small Debian 12 root, the ground for images and for the machine that
# the package is tried on: make_root.sh FILE.tar
set -euo pipefail

file=$1
[[ ! -s "$file" ]] || exit 0
mkdir -p "$(dirname "$file")"
mmdebstrap --quiet --variant=minbase --include=ca-certificates bookworm \
  "$file.part.tar"
mv "$file.part.tar" "$file"
