#!/usr/bin/env bash
# Builds the parcel for a machine with a GPU: build/gpu.tar.xz, which run.sh
# unpacks there into build/gpu/.
#
#   bin/        the tests on the CUDA backend, cuda_bench, qkscoped, qkctl
#   lib/        the shared libraries that they need, but for those of glibc and
#               NVIDIA's, which are the machine's own
#   lib/glibc/  Debian's glibc with its loader, for a machine whose own is older
#
# Fails if the parcel has more than 40 MiB, or a program lacks a library. Needs
# nvcc (tests/cuda/make_venv.sh). JOBS: how many compilers at a time (2).
set -euo pipefail
cd "$(dirname "$0")/../.."

programs=(
  backend_conformance_test golden_test identity_test families_identity_test
  disruption_test generation_test shapes_identity_test create_backend_test
  cuda_no_device_test cuda_bench qkscoped qkctl)
limit=$((40 << 20))
build=build/gpu-build
parcel=build/gpu
# Of glibc: they fit their own loader alone.
glibc='^(ld-linux-x86-64\.so\.2|lib(c|m|dl|rt|pthread|resolv|util|anl)\.so\.[0-9]+)$'
nvidia='^lib(cuda|cublasLt|nvidia-ml)\.so'

die() {
  echo "pack.sh: $*" >&2
  exit 1
}

# needed FILE...: "NAME PATH" of every library that the files load.
needed() {
  ldd "$@" | awk '$2 == "=>" { print $1, $3 } $1 ~ /^\// && NF == 2 && $2 ~ /^\(/ {
    n = split($1, part, "/"); print part[n], $1 }' | sort -u
}

# RPATH, which dlopen and LD_LIBRARY_PATH cannot overrule.
cmake -G Ninja -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DQK_CUDA=ON \
  -DQK_GPU_TESTS=ON -DCMAKE_BUILD_RPATH="\$ORIGIN/../lib" \
  -DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags
cmake --build "$build" --parallel "${JOBS:-2}" --target "${programs[@]}"

rm -rf "$parcel" "$parcel.tar.xz"
mkdir -p "$parcel/bin" "$parcel/lib/glibc"
for program in "${programs[@]}"; do
  strip -o "$parcel/bin/$program" "$build/bin/$program"
done
while read -r name path; do
  [[ ! "$name" =~ $nvidia ]] || die "$name is linked; it must be opened"
  [[ -r "$path" ]] || die "a program needs $name, which is not here"
  folder=lib
  [[ ! "$name" =~ $glibc ]] || folder=lib/glibc
  strip -o "$parcel/$folder/$name" "$path"
done < <(needed "${programs[@]/#/$build/bin/}")

# Each program finds every library in the parcel, or in glibc.
for program in "${programs[@]}"; do
  found=$(env -u LD_LIBRARY_PATH bash -c "$(declare -f needed)
    needed '$PWD/$parcel/bin/$program'")
  [[ -n "$found" ]] || die "ldd says nothing of $program"
  while read -r name path; do
    [[ "$name" =~ $glibc || "$path" == "$PWD/$parcel/"* ||
      "$path" == "$PWD/$parcel/bin/../lib/"* ]] ||
      die "$program takes $name from $path, not from the parcel"
  done <<<"$found"
done
"$parcel/lib/glibc/ld-linux-x86-64.so.2" \
  --library-path "$parcel/lib/glibc:$parcel/lib" "$parcel/bin/qkctl" --help \
  >/dev/null || die "qkctl does not run under the parcel's own loader"

# Every test has the same kernels in it: a dictionary of 128 MiB sees that.
tar -C build -cf - gpu | xz --lzma2=preset=2,dict=128MiB >"$parcel.tar.xz"
bytes=$(stat -c %s "$parcel.tar.xz")
((bytes <= limit)) || die "$parcel.tar.xz has $bytes bytes, more than $limit"
echo "$parcel.tar.xz: $((bytes >> 10)) KiB," \
  "$(du -sk "$parcel" | cut -f1) KiB unpacked, ${#programs[@]} programs"
echo "carry: [\"$parcel.tar.xz\"]"
echo 'run:   bash tests/gpu/run.sh "$OUT" a, then the same with b'
