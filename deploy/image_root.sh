#!/usr/bin/env bash
# Collects what an image needs of this machine, and nothing else:
#
#   image_root.sh FOLDER PROGRAM...             a whole root, for an empty image
#   image_root.sh --over-base FOLDER PROGRAM... for an image that has a base
#   image_root.sh --sbom BUILD ...              with an SBOM of programs that
#                                               Ninja built in the folder BUILD
#
# A whole root has the programs in /usr/bin, the libraries that they load, glibc
# with its loader, the authorities that Debian trusts, a user without rights
# (qkscope, 65532), and of each Debian package that a file is from its entry for
# scanners of packages (/var/lib/dpkg/status.d) and its licence. There is no
# shell and no package manager. Over a base, libraries lie in /opt/qkscope/lib
# (LD_LIBRARY_PATH), because the base has its own, and glibc is the base's.
#
# The machine is a Debian with the packages that the programs load.
set -euo pipefail

whole=1
build=
while [[ "${1:-}" == --* ]]; do
  case $1 in
    --over-base) whole=0 ;;
    --sbom)
      build=${2:-}
      shift
      ;;
    *) set -- ;;
  esac
  shift || true
done
if (($# < 2)); then
  echo "usage: image_root.sh [--over-base] [--sbom BUILD] FOLDER PROGRAM..." >&2
  exit 2
fi
root=$1
shift

die() {
  echo "image_root.sh: $*" >&2
  exit 1
}

# Of glibc: they fit their own loader alone.
glibc='^(ld-linux.*|lib(c|m|dl|rt|pthread|resolv|util|anl))\.so(\.[0-9]+)?$'
uid=65532

# "NAME PATH" of every library that the files load, the loader included.
needed() {
  ldd "$@" | awk '$2 == "=>" { print $1, $3 }
    $1 ~ /^\// && $2 ~ /^\(/ { n = split($1, part, "/"); print part[n], $1 }' |
    sort -u
}

copy_libraries() {
  local name path folder
  while read -r name path; do
    [[ -r "$path" ]] || die "a program needs $name, which is not here"
    folder=$root/opt/qkscope/lib
    if ((whole)); then
      folder=$root/usr$(dirname "${path#/usr}")
    elif [[ "$name" =~ $glibc ]]; then
      continue
    fi
    install -D -m 755 "$path" "$folder/$name"
    echo "$path" >>"$libraries"
  done < <(needed "$@")
}

# The Debian packages that files are from, one for each file. dpkg knows a file
# by the name that its package gave it, and /lib is a link to /usr/lib.
packages_of() {
  local file real
  while read -r file; do
    real=$(realpath "$file")
    printf '%s\n' "$real" "${real#/usr}" "$file" "/usr$file" "${file#/usr}"
  done <"$1" | sort -u | xargs dpkg-query -S 2>/dev/null | sed 's/: .*//' |
    sort -u || true
}

# Licences travel with what they cover; the entries are for scanners of packages.
copy_papers() {
  local package docs=$root/usr/share/doc
  ((whole)) || docs=$root/opt/qkscope/doc
  while read -r package; do
    install -D -m 644 "/usr/share/doc/${package%%:*}/copyright" \
      "$docs/${package%%:*}/copyright"
    ((whole)) || continue
    mkdir -p "$root/var/lib/dpkg/status.d"
    dpkg-query -s "$package" >"$root/var/lib/dpkg/status.d/${package%%:*}"
  done
  install -D -m 644 "$(dirname "$0")/../LICENSE" "$docs/qkscope/copyright"
  cp -a /usr/share/common-licenses "$docs/../"
}

make_system() {
  mkdir -p "$root"/{etc/qkscope,etc/ssl/certs,models,proc,sys,dev,run}
  ln -s usr/lib "$root/lib"
  [[ ! -d "$root/usr/lib64" ]] || ln -s usr/lib64 "$root/lib64"
  cat >"$root/etc/passwd" <<END
root:x:0:0:root:/root:/usr/sbin/nologin
qkscope:x:$uid:$uid:qkscope:/nonexistent:/usr/sbin/nologin
END
  printf 'root:x:0:\nqkscope:x:%d:\n' "$uid" >"$root/etc/group"
  # /etc/hosts, which Docker writes, before DNS.
  echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
  cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
}

[[ ! -e "$root" ]] || die "$root exists already"
libraries=$(mktemp)
trap 'rm -f "$libraries"' EXIT

for program in "$@"; do
  install -D -m 755 "$program" "$root/usr/bin/$(basename "$program")"
  strip "$root/usr/bin/$(basename "$program")"
done
copy_libraries "$@"
if ((whole)); then
  make_system
fi
if [[ -n "$build" ]]; then
  docs=$root/usr/share/doc/qkscope
  ((whole)) || docs=$root/opt/qkscope/doc/qkscope
  mkdir -p "$docs"
  python3 -B "$(dirname "$0")/make_sbom.py" --build "$build" \
    "$root"/usr/bin/* >"$docs/qkscope.spdx.json"
fi
packages_of "$libraries" | { ((whole == 0)) || echo ca-certificates; cat; } |
  copy_papers
# The server makes its spool below, with mode 0700, whatever user it runs as.
install -d -m 1777 "$root/var/lib/qkscope" "$root/tmp"
