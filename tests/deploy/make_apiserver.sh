#!/usr/bin/env bash
# Builds Kubernetes' API server, 1.20, from Debian's source package, which no
# package of binaries has: make_apiserver.sh FILE. About 5 minutes.
set -euo pipefail

file=$(realpath -m "$1")
[[ ! -s "$file" ]] || exit 0
scratch=$(mktemp -d)
trap 'chmod -R u+w "$scratch"; rm -rf "$scratch"' EXIT
cd "$scratch"

# The machine's own list of sources stays as it is.
mirror=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list \
  /etc/apt/sources.list.d 2>/dev/null | head -1 | tr -d ' ' || true)
echo "deb-src ${mirror:-http://deb.debian.org/debian} bookworm main" >list
mkdir lists
apt=(-o "Dir::Etc::sourcelist=$scratch/list" -o Dir::Etc::sourceparts=-
  -o "Dir::State::lists=$scratch/lists" -o APT::Sandbox::User=root)
apt-get "${apt[@]}" -qq update
apt-get "${apt[@]}" -qq source kubernetes >/dev/null
cd kubernetes-*/
mkdir -p .go/src/k8s.io
ln -s "$PWD" .go/src/k8s.io/kubernetes
PATH=/usr/lib/go-1.19/bin:$PATH GOPATH=$PWD/.go GOFLAGS=-mod=vendor \
  GOCACHE=$scratch/cache GO111MODULE=off CGO_ENABLED=0 \
  make WHAT=cmd/kube-apiserver >"$scratch/log" 2>&1 || { tail -30 "$scratch/log"; exit 1; }
mkdir -p "$(dirname "$file")"
built=$(find "$PWD" -path '*/bin/*' -name kube-apiserver -type f | head -1)
cp "$built" "$file.part"
mv "$file.part" "$file"
