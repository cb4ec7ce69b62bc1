#!/usr/bin/env bash
# Makes Debian's packages: qkscope-server, qkscope-client, libqkscope-dev.
#
#   bash deploy/debian/build.sh [--build FOLDER] [--version VERSION] OUT
#
# The .deb files go to the folder OUT. --build takes programs and library of a
# CMake build whose target `packaged` is there, such as build/release; without
# it, all is compiled with Debian's own flags, which takes long. --version gives
# the packages another version than that of deploy/debian/changelog.
set -euo pipefail
root=$(realpath "$(dirname "$0")/../..")

usage() {
  echo "usage: build.sh [--build FOLDER] [--version VERSION] OUT" >&2
  exit 2
}

build=
version=
while (($# > 1)); do
  case $1 in
    --build) build=$(realpath "$2") ;;
    --version) version=$2 ;;
    *) usage ;;
  esac
  shift 2
done
(($# == 1)) || usage
mkdir -p "$1"
out=$(realpath "$1")

# The top of the tree has no debian/, and the packages land beside it.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
tree=$scratch/qkscope
mkdir "$tree"
parts=(.)
[[ -z "$build" ]] ||
  parts=(deploy docs README.md SECURITY.md)
tar -C "$root" --exclude=./build --exclude=./.git -c "${parts[@]}" |
  tar -C "$tree" -x
cp -r "$root/deploy/debian" "$tree/debian"
cd "$tree"

changelog=$(dpkg-parsechangelog --show-field Version)
project=$(sed -nE 's/^project\(qkscope VERSION ([0-9.]+) .*/\1/p' \
  "$root/CMakeLists.txt")
if [[ "$changelog" != "$project" ]]; then
  echo "build.sh: deploy/debian/changelog has version $changelog," \
       "CMakeLists.txt has $project" >&2
  exit 1
fi
if [[ -n "$version" ]]; then
  sed -i "1s/($changelog)/($version)/" debian/changelog
fi

options=nocheck
if [[ -n "$build" ]]; then
  export QK_BUILD=$build
  # A release build has no debug information.
  options+=" noautodbgsym"
fi
DEB_BUILD_OPTIONS="$options ${DEB_BUILD_OPTIONS:-}" \
  dpkg-buildpackage --build=binary --no-sign
mv "$scratch"/*.deb "$out/"
