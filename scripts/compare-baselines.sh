#!/usr/bin/env bash
# Compares our epoll and io_uring engines with the leanest correct servers in C, at 50 and 1,000 connections: are ours as
# good as they can be? `epoll` may cost at most 3 % more than its C server (scripts/baselines/README.md).
#
#     scripts/compare-baselines.sh              about five minutes
#     scripts/compare-baselines.sh -d 1s        flags go through to `echometer compare`
#     ENGINES=epoll CONNECTIONS=50 scripts/compare-baselines.sh
#
# Needs Rust, a C compiler, two cpus, and liburing 2.3 or later for `uring` (apt-get install liburing-dev). Exits
# as scripts/compare-engines.sh does.
set -o errexit -o nounset -o pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
help_if_asked "$@"
no_single_folder "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

read -r -a engines <<< "${ENGINES:-epoll uring}"
read -r -a connections <<< "${CONNECTIONS:-50 1000}"
target=${CARGO_TARGET_DIR:-target}

command -v cc > /dev/null || {
  echo "compare-baselines.sh: a C compiler (cc) is missing: install one (Debian, Ubuntu: apt-get install gcc libc6-dev)" >&2
  exit 1
}
name_commit
cargo build --locked --release --package echometer --package echometer-server
for engine in "${engines[@]}"; do
  libraries=()
  [[ $engine != uring ]] || libraries=(-luring)
  cc -O2 -Wall -Wextra -o "$target/baseline-$engine" "scripts/baselines/$engine.c" "${libraries[@]}" || {
    echo "compare-baselines.sh: scripts/baselines/$engine.c does not build${libraries[*]:+: is liburing-dev 2.3 or later installed?}" >&2
    exit 1
  }
done

# A comparison takes a Ctrl-C as its own end, and says so; the ones after it must not start then.
stopped=no
trap 'stopped=yes' INT

worst=0
for engine in "${engines[@]}"; do
  for n in "${connections[@]}"; do
    printf '\n=== %s, %s connections\n' "$engine" "$n"
    status=0
    "$target/release/echometer" compare "c=$target/baseline-$engine {port}" "$engine" --connections "$n" "$@" || status=$?
    [[ $stopped == no ]] || exit 130
    ((status == 0 || status == 3)) || exit "$status"
    ((status <= worst)) || worst=$status
  done
done
exit "$worst"
