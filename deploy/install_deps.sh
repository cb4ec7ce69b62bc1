#!/usr/bin/env bash
# Installs missing Debian 12 packages; does nothing if none are missing.
#
#   bash deploy/install_deps.sh          for the build and the demo
#   bash deploy/install_deps.sh tests    also for tests/run.sh
#   bash deploy/install_deps.sh check    also for tests/check.sh
#   bash deploy/install_deps.sh deploy   also for deploy/check.sh
#   bash deploy/install_deps.sh deploy_full   also for deploy/check.sh --full
#   bash deploy/install_deps.sh stress   also for tests/stress.sh
set -euo pipefail

purpose=${1:-}
if [[ ! "$purpose" =~ ^(tests|check|deploy|deploy_full|stress)?$ ]]; then
  echo "usage: install_deps.sh [tests|check|deploy|deploy_full|stress]" >&2
  exit 2
fi

packages=(
  g++ cmake ninja-build ccache pkg-config
  libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc
  libabsl-dev
  # oneDNN's CMake files look for OpenCL, which its package only recommends.
  libdnnl-dev ocl-icd-opencl-dev opencl-headers
  libhwy-dev libisal-dev libsimdjson-dev libpcre2-dev libutf8proc-dev
  prometheus-cpp-dev libmicrohttpd-dev libssl-dev libpng-dev
  libjpeg62-turbo-dev
  libgtest-dev libgmock-dev libbenchmark-dev
  python3 python3-venv ca-certificates
)
if [[ -n "$purpose" ]]; then
  # promtool checks the rules and dashboards; openssl makes certificates;
  # haproxy runs with the configuration of deploy/haproxy; curl is a command of
  # the documents.
  # Chromium shows the pages that a test looks at; its pictures need a font.
  packages+=(git openssl prometheus haproxy curl clang-format-14 chromium
             fonts-dejavu-core)
  # The compiler of the cross build, which only this kind of machine does.
  [[ "$(uname -m)" != x86_64 ]] || packages+=(g++-aarch64-linux-gnu)
fi
if [[ "$purpose" == check ]]; then
  packages+=(clang-14 clang-tidy-14)
fi
if [[ "$purpose" == deploy* ]]; then
  # check.sh itself: pkill.
  packages+=(procps)
  # sbom: readelf.
  packages+=(binutils)
  # The root of images and of the machine that the package is tried on.
  packages+=(mmdebstrap)
  # alerts, docker.
  packages+=(prometheus-alertmanager)
  # docker: an engine of the check's own, and Compose.
  packages+=(docker.io iptables iproute2 docker-compose)
  # The Debian package: what makes it, looks at it and runs it.
  packages+=(build-essential debhelper lintian man-db systemd-container)
  # qkctl's completion; bash is there.
  packages+=(zsh)
  # A cluster of one machine, for the batch script of deploy/slurm.
  packages+=(slurmctld slurmd slurm-client munge)
fi
if [[ "$purpose" == deploy_full ]]; then
  # apiserver: builds the API server of Kubernetes, which no package has.
  packages+=(golang-1.19-go etcd-server dpkg-dev rsync make)
fi
if [[ "$purpose" == stress ]]; then
  packages+=(stress-ng)
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ "$status" == installed ]] || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  exit 0
fi

sudo=()
if ((EUID != 0)); then
  if ! command -v sudo >/dev/null; then
    echo "These packages are missing and must be installed by root (or with" \
         "sudo): ${missing[*]}" >&2
    exit 1
  fi
  sudo=(sudo)
fi

# Keeps packages from starting their services, with Debian's own mechanism. The
# policy is removed at the end.
policy=/usr/sbin/policy-rc.d
if [[ ! -e "$policy" ]]; then
  printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
  "${sudo[@]}" chmod 755 "$policy"
  trap '"${sudo[@]}" rm -f "$policy"' EXIT
fi

echo "Installing ${#missing[@]} packages: ${missing[*]}"
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
