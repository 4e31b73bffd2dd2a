#!/usr/bin/env bash
# Compares all five engines of echometer-server, with epoll as the baseline, at 1, 50 and 1,000 connections. Writes three
# comparisons to results/, and beside them a folder engines-NNN with one table and one chart of all three.
#
#     scripts/compare-engines.sh                about eight minutes
#     scripts/compare-engines.sh -d 700ms       flags go through to `echometer compare`
#     CONNECTIONS='1 50' scripts/compare-engines.sh
#
# Needs Rust, two cpus, a Linux with io_uring, and Python 3.9 for the table. Exits 0 when all were valid, 3 when some
# were measured but not valid (the table says which), 130 after a Ctrl-C, else as `echometer compare` did.
set -o errexit -o nounset -o pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
help_if_asked "$@"
no_single_folder "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

engines=(epoll uring tokio tokio-uring blocking)
read -r -a connections <<< "${CONNECTIONS:-1 50 1000}"

command -v python3 > /dev/null || {
  echo "compare-engines.sh: python3 is missing, which makes the table: install it, and run this again" >&2
  exit 1
}
name_commit
cargo build --locked --release --package echometer --package echometer-server

# A comparison takes a Ctrl-C as its own end, and says so; the ones after it must not start then.
stopped=no
trap 'stopped=yes' INT

reports=()
worst=0
for n in "${connections[@]}"; do
  printf '\n=== %s connections\n' "$n"
  status=0
  output=$("${CARGO_TARGET_DIR:-target}/release/echometer" compare "${engines[@]}" --connections "$n" "$@") || status=$?
  printf '%s\n' "$output"
  [[ $stopped == no ]] || exit 130
  ((status == 0 || status == 3)) || exit "$status"
  ((status <= worst)) || worst=$status
  # Its last line says where it put them: `open: FOLDER/report.txt (...)`.
  folder=$(sed --quiet 's|^open: \(.*\)/report\.txt.*|\1|p' <<< "$output")
  reports+=("$folder/compare.json")
done

python3 scripts/engines_table.py "${reports[@]}"
exit "$worst"
