#!/usr/bin/env bash
# Makes what docker-compose.yml needs and what is not there yet: certificates,
# users with their tokens, Grafana's password, .env. It replaces nothing.
#
#   bash deploy/compose_setup.sh [--model NAME=FILE] [--host NAME]... [--user ALIAS]
#
#   --model NAME=FILE  copies a model's file or folder to models/ and serves it
#   --host NAME        a name or address by which clients reach the edge, beside
#                      localhost; in its certificate
#   --user ALIAS       the first user, an operator (default: operator)
#
# The certificate's authority is made here, too, for a trial or for a network
# where everybody can be given its certificate (secrets/ca/ca.crt). With a
# certificate from elsewhere, put chain and key into secrets/edge/edge.pem.
#
# QKSCOPE_IMAGE: the image whose qkctl makes the tokens. QKCTL: a qkctl to use
# instead.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

usage() {
  echo "usage: compose_setup.sh [--model NAME=FILE] [--host NAME]..." \
    "[--user ALIAS]" >&2
  exit 2
}

die() {
  echo "compose_setup.sh: $*" >&2
  exit 1
}

model='' user=operator hosts=(localhost 127.0.0.1)
while (($# > 0)); do
  (($# >= 2)) || usage
  case $1 in
    --model) model=$2 ;;
    --host) hosts+=("$2") ;;
    --user) user=$2 ;;
    *) usage ;;
  esac
  shift 2
done
[[ -z "$model" || "$model" =~ ^[A-Za-z0-9._-]+=.+$ ]] ||
  die "--model: must be NAME=FILE, got '$model'"
for host in "${hosts[@]}"; do
  [[ "$host" =~ ^[A-Za-z0-9.:_-]+$ ]] || die "--host: '$host' is no name"
done

# made FILE: says whether FILE is there already.
made() {
  [[ ! -e "$1" ]] || { echo "kept     $1"; return 0; }
  return 1
}

# Container users read the files, so their modes let everybody; the folder around
# them lets nobody in but its owner.
secrets=secrets
made "$secrets" || mkdir -m 700 "$secrets"
mkdir -p "$secrets"/{ca,client,edge,grafana,prometheus,server}

new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256; }

make_authority() {
  made "$secrets/ca/ca.crt" && return
  (umask 077; new_key >"$secrets/ca/ca.key")
  openssl req -x509 -new -key "$secrets/ca/ca.key" -sha256 -days 3650 \
    -subj "/CN=qkscope authority" -out "$secrets/ca/ca.crt" \
    -addext 'keyUsage=critical,keyCertSign,cRLSign'
  echo "made     $secrets/ca/ca.crt"
}

make_certificate() {
  made "$secrets/edge/edge.pem" && return
  local host names='' work
  for host in "${hosts[@]}"; do
    if [[ "$host" =~ ^[0-9.]+$ || "$host" == *:* ]]; then
      names+=",IP:$host"
    else
      names+=",DNS:$host"
    fi
  done
  work=$(mktemp -d "$secrets/ca/new.XXXXXX")
  new_key >"$work/key"
  openssl req -new -key "$work/key" -subj /CN=qkscope -out "$work/request"
  printf '%s\n' 'basicConstraints=critical,CA:FALSE' \
    'keyUsage=critical,digitalSignature' 'extendedKeyUsage=serverAuth' \
    "subjectAltName=${names#,}" >"$work/extensions"
  openssl x509 -req -in "$work/request" -sha256 -days 365 \
    -CA "$secrets/ca/ca.crt" -CAkey "$secrets/ca/ca.key" -CAcreateserial \
    -extfile "$work/extensions" -out "$work/cert" 2>"$work/log" ||
    die "openssl: $(cat "$work/log")"
  cat "$work/cert" "$work/key" >"$work/pem"
  mv "$work/pem" "$secrets/edge/edge.pem"
  rm -r "$work"
  echo "made     $secrets/edge/edge.pem for ${hosts[*]}"
}

run_qkctl() {
  if [[ -n "${QKCTL:-}" ]]; then
    (cd "$secrets/server" && "$QKCTL" "$@")
    return
  fi
  docker run --rm --network none --read-only --cap-drop ALL \
    --user "$(id -u):$(id -g)" --volume "$PWD/$secrets/server:/users" \
    --workdir /users --entrypoint /usr/bin/qkctl \
    "${QKSCOPE_IMAGE:-qkscope:0.1.0}" "$@"
}

# make_user ALIAS ROLE FILE: a user whose token is in FILE.
make_user() {
  made "$3" && return
  run_qkctl user add "$1" --role "$2" --users-file users.conf >"$3.new" || {
    rm -f "$3.new"
    die "no token was made for $1"
  }
  mv "$3.new" "$3"
  # Later changes keep the mode. The file holds no tokens, only their SHA-256.
  chmod 644 "$secrets/server/users.conf"
  echo "made     $3"
}

make_password() {
  made "$secrets/grafana/admin.password" && return
  openssl rand -hex 24 >"$secrets/grafana/admin.password"
  echo "made     $secrets/grafana/admin.password"
}

copy_model() {
  mkdir -p models
  [[ -n "$model" ]] || return 0
  local file=${model#*=} target
  target=models/$(basename "$file")
  [[ -e "$file" ]] || die "--model: $file does not exist"
  if ! made "$target"; then
    cp -RL "$file" "$target.part"
    chmod -R a+rX "$target.part"
    mv "$target.part" "$target"
    echo "made     $target"
  fi
}

make_settings() {
  made .env && return
  local line=''
  [[ -z "$model" ]] || line=${model%%=*}=/models/$(basename "${model#*=}")
  sed "s|^QKSCOPE_MODEL=\$|QKSCOPE_MODEL=$line|" .env.example >.env.new
  mv .env.new .env
  echo "made     .env"
  [[ -n "$line" ]] || echo "Say in .env which model to serve: QKSCOPE_MODEL."
}

copy_model
make_authority
make_certificate
make_user "$user" operator "$secrets/client/$user.token"
make_user prometheus user "$secrets/prometheus/metrics.token"
make_password
make_settings
cat <<END
Then:
  docker-compose up -d
  qkctl --server localhost:7461 --tls-ca $secrets/ca/ca.crt \\
      --token-file $secrets/client/$user.token models
END
