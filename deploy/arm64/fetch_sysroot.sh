#!/usr/bin/env bash
# Fetches the arm64 libraries that engine/ is compiled against, and prints the
# folder that holds them. apt works on a state of its own inside that folder,
# so the system's architectures and packages stay as they are, and root is not
# needed.
#
#   bash deploy/arm64/fetch_sysroot.sh FOLDER
set -euo pipefail

packages=(libabsl-dev libdnnl-dev libhwy-dev libisal-dev libpcre2-dev libsimdjson-dev
          libssl-dev libutf8proc-dev)

if (($# != 1)); then
  echo "usage: fetch_sysroot.sh FOLDER" >&2
  exit 2
fi
mkdir -p "$1"
root=$(cd "$1" && pwd)
stamp="$root/packages"
if [[ "$(cat "$stamp" 2>/dev/null || true)" == "${packages[*]}" ]]; then
  echo "$root"
  exit 0
fi

rm -rf "${root:?}"/*
work=$(mktemp -d "$root/apt.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists,cache/archives}/partial
touch "$work/status"  # no package is installed
apt=(apt-get -qq
     -o APT::Architecture=arm64 -o APT::Architectures=arm64
     -o APT::Sandbox::User="$(id -un)"
     -o Dir::State::status="$work/status" -o Dir::State::lists="$work/lists"
     -o Dir::Cache="$work/cache" -o Debug::NoLocking=1)

echo "Fetching ${#packages[@]} arm64 packages for the cross build, once" >&2
if ! { "${apt[@]}" update &&
       "${apt[@]}" --yes --download-only --no-install-recommends \
         install "${packages[@]}"; } >&2; then
  echo "The arm64 packages could not be fetched: ${packages[*]}" >&2
  exit 1
fi
for package in "$work"/cache/archives/*.deb; do
  dpkg-deb --extract "$package" "$root"
done
echo "${packages[*]}" >"$stamp"
echo "$root"
