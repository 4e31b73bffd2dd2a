#!/usr/bin/env bash
# Plays two machines on one. Makes two network namespaces with a virtual cable between them, runs one server per engine in
# the first, and compares them from the second as `tcp:` arms: servers that run already, elsewhere, and whose CPU can't
# be read from here. Everything is removed again, whatever happens.
#
#     scripts/netns.sh                         epoll against uring, about twenty seconds
#     scripts/netns.sh -R 20k --design runs    flags go through to `echometer compare`
#     ENGINES='epoll tokio' scripts/netns.sh
#
# Needs root (namespaces), iproute2, Rust and two cpus. Exits as `echometer compare` does.
set -o errexit -o nounset -o pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
help_if_asked "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

missing() {
  printf 'netns.sh: %s\n' "$@" >&2
  exit 1
}
command -v ip > /dev/null || missing "ip is missing: install iproute2, and run this again"
((EUID == 0)) || missing "network namespaces take root: run this as root (sudo --preserve-env=PATH $0)"
# The build must not need a network that the namespaces don't have, and root may have no cargo: build first, then run.
if command -v cargo > /dev/null; then
  cargo build --locked --release --package echometer --package echometer-server
fi
bin=${CARGO_TARGET_DIR:-target}/release
[[ -x $bin/echometer && -x $bin/echometer-server ]] \
  || missing "$bin/echometer is missing: build it (cargo build --release), and run this again"

read -r -a engines <<< "${ENGINES:-epoll uring}"
near=echometer-near-$$ far=echometer-far-$$
servers=()
scratch=$(mktemp --directory)

# Only what was made here is taken down: processes by their numbers, namespaces by their names.
# shellcheck disable=SC2317,SC2329  # called by the traps below
clean_up() {
  for server in "${servers[@]}"; do
    kill "$server" 2> /dev/null || true
  done
  for server in "${servers[@]}"; do
    wait "$server" 2> /dev/null || true
  done
  ip netns delete "$near" 2> /dev/null || true
  ip netns delete "$far" 2> /dev/null || true
  rm --recursive --force "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

ip netns add "$near" || missing "this machine allows no network namespaces (a container without CAP_SYS_ADMIN?)"
ip netns add "$far"
# 192.0.2.0/24 is for examples (RFC 5737), so that it is nobody's.
ip link add name veth0 netns "$near" type veth peer name veth0 netns "$far"
ip -netns "$near" address add 192.0.2.1/24 dev veth0
ip -netns "$far" address add 192.0.2.2/24 dev veth0
for namespace in "$near" "$far"; do
  ip -netns "$namespace" link set lo up
  ip -netns "$namespace" link set veth0 up
done

arms=()
port=7777
for engine in "${engines[@]}"; do
  log=$scratch/$engine
  # Bounded: a server that is forgotten ends by itself.
  ip netns exec "$far" timeout 300 "$bin/echometer-server" --listen "192.0.2.2:$port" --engine "$engine" --cpus 0 \
    > "$log.out" 2> "$log.err" &
  servers+=($!)
  for ((waited = 0; waited < 100; waited++)); do
    if grep --quiet '^listening' "$log.out"; then break; fi
    kill -0 $! 2> /dev/null || missing "the server $engine ended: $(< "$log.err")"
    sleep 0.1
  done
  grep --quiet '^listening' "$log.out" || missing "the server $engine did not start within ten seconds"
  arms+=("$engine=tcp:192.0.2.2:$port")
  port=$((port + 1))
done

# Of a flag that was typed nobody else says it twice.
defaults=()
[[ " $*" == *' --client-cpus'* ]] || defaults+=(--client-cpus 1)
[[ " $*" == *' -d'[\ =0-9]* || " $*" == *' --duration'* ]] || defaults+=(--duration 1s)

# Servers that were started by hand keep what they are: no fresh process per block, no CPU, no memory to be seen.
# In the foreground, so that a Ctrl-C reaches it.
status=0
ip netns exec "$near" timeout --foreground 280 "$bin/echometer" compare "${arms[@]}" "${defaults[@]}" "$@" || status=$?
exit "$status"
