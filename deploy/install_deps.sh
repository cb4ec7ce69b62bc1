#!/usr/bin/env bash
# Installs the Debian 12 packages that are missing; does nothing when none is.
#
#   bash deploy/install_deps.sh          what the build and the demo need
#   bash deploy/install_deps.sh tests    and what the tests need besides
#   bash deploy/install_deps.sh stress   and what tests/stress.sh needs besides
set -euo pipefail

packages=(
  g++ cmake ninja-build ccache pkg-config
  libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc
  libabsl-dev
  # oneDNN's CMake files look for OpenCL, which its package only recommends.
  libdnnl-dev ocl-icd-opencl-dev opencl-headers
  libhwy-dev libisal-dev libsimdjson-dev libpcre2-dev libutf8proc-dev
  libspdlog-dev prometheus-cpp-dev libssl-dev libpng-dev libjpeg62-turbo-dev
  libgtest-dev libgmock-dev libbenchmark-dev
  python3 python3-venv ca-certificates
)
if [[ "${1:-}" == tests || "${1:-}" == stress ]]; then
  # promtool checks the rules and dashboards; openssl makes certificates;
  # haproxy runs with the configuration of deploy/haproxy.
  packages+=(git openssl prometheus haproxy)
fi
if [[ "${1:-}" == stress ]]; then
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
    echo "These packages are missing, and there is neither root nor sudo to" \
         "install them: ${missing[*]}" >&2
    exit 1
  fi
  sudo=(sudo)
fi

# A package that brings a service must not start it here: this is Debian's own
# way to say so, and it is taken back at the end.
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
