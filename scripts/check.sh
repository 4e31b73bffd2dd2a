#!/usr/bin/env bash
# Does what CI does, in the same order, and stops at the first failure.
#
#     scripts/check.sh                 everything: fmt circles clippy doc licences shell test kernels bench figures
#     scripts/check.sh clippy test     these only
#
# Needs Rust with rustfmt and clippy; shellcheck is used where it is installed, and so is what scripts/kernels.sh
# needs. The step `bench` makes a short but real measurement, so leave the machine alone meanwhile.
set -o errexit -o nounset -o pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
help_if_asked "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step_fmt() {
  cargo fmt --all --check
}

# No two files of a crate need each other. The check is seen to fail first, on circles that it plants.
step_circles() {
  scripts/circles.py --self-test
  scripts/circles.py
}

step_clippy() {
  cargo clippy --locked --workspace --all-targets -- --deny warnings
}

# The pages name files and tests that exist, and the Rust documentation builds.
step_doc() {
  scripts/check-paths.py --self-test
  RUSTDOCFLAGS='--deny warnings' cargo doc --locked --no-deps --workspace
}

# Every dependency must offer a licence that MIT OR Apache-2.0 software can be given away with; where one
# lies under several at once (AND), each of them must.
step_licences() {
  cargo tree --locked --workspace --edges normal,build --prefix none --format '{l}|{p}' | awk -F '|' '
    NF < 2 { next }
    {
      parts = split($1, part, " AND ")
      for (i = 1; i <= parts; i++) {
        if (part[i] !~ /(MIT|Apache-2\.0|BSD-[23]-Clause|ISC|Zlib|0BSD|Unlicense|Unicode-3\.0|CC0-1\.0)/) parts = 0
      }
      if (parts == 0) { print "check.sh: no licence known to fit: " $2 " (" $1 ")" > "/dev/stderr"; bad = 1 }
    }
    END { exit bad }'
}

step_shell() {
  if command -v shellcheck > /dev/null; then
    shellcheck scripts/*.sh scripts/kernels/*.sh .ci/run
  else
    echo "shellcheck is not installed: skipped"
  fi
}

# Most of the time goes to the server's tests, which wait more than they compute: so two run at a time for each cpu.
step_test() {
  RUST_TEST_THREADS=$((2 * $(nproc))) cargo test --locked --workspace
}

# The server on an old kernel and on the newest, emulated. Where the kernels or the emulator can't be had, that is said;
# in CI it is a failure.
step_kernels() {
  local status=0
  scripts/kernels.sh --short --jobs 2 || status=$?
  case $status in
    0) ;;
    3) [[ -z ${CI-} ]] || fail "the kernels can't be run here, and CI is set"
      echo "the kernels can't be run here: skipped" ;;
    *) fail "kernels.sh --short ended with exit status $status" ;;
  esac
}

# A real run of the main job. A machine may be too noisy for a valid result (exit 3), which is no fault
# of the software; but then the file must say why.
step_bench() {
  local out=$PWD/target/check/bench status=0
  rm --recursive --force "$out"
  scripts/bench.sh --quick --out "$out" || status=$?
  case $status in
    0) echo "bench.sh --quick: valid" ;;
    3) echo "bench.sh --quick: measured, but not valid; the file must say why" ;;
    *) fail "bench.sh --quick ended with exit status $status" ;;
  esac
  check_comparison "$out" "$status"
}

# Reads the files as a stranger would: with no code of ours, and no more tools than a bare machine has.
check_comparison() {
  local out=$1 status=$2 json key metric hlogs hlog
  [[ -s $out/compare.json ]] || fail "$out/compare.json is missing or empty"
  # Without blanks, so that it does not matter how it is indented.
  json=$(tr --delete '[:space:]' < "$out/compare.json")

  contains "$json" '"schema":"echometer.compare/1"'
  for key in arms design seed machine commands blocks metrics; do
    contains "$json" "\"$key\":"
  done
  for metric in server_cpu_per_message rate latency_p50 latency_p99; do
    contains "$json" "\"name\":\"$metric\""
  done
  grep --quiet --extended-regexp '"verdict":"(better|worse|same|small|undecided|invalid)"' <<< "$json" \
    || fail "compare.json holds no verdict"
  if ((status == 3)); then
    grep --quiet '"reasons":\["[^"]' <<< "$json" || fail "not valid, and compare.json does not name the reason"
  fi

  # Two arms in each of six blocks, every histogram in a file of its own; a block that failed may lack some.
  mapfile -t hlogs < <(grep --only-matching '"hlog":"[^"]*"' <<< "$json" | cut --delimiter='"' --fields=4 | sort --unique)
  ((${#hlogs[@]} == 12 || (status == 3 && ${#hlogs[@]} < 12))) || fail "compare.json names ${#hlogs[@]} histograms where 6 blocks of 2 arms have 12"
  for hlog in "${hlogs[@]}"; do
    grep --quiet '^#\[Histogram log format version' "$out/$hlog" || fail "$hlog is no histogram log"
    grep --quiet 'HISTF' "$out/$hlog" || fail "$hlog holds no histogram"
  done
}

# What README.md and docs/ show of results/ must be what they give.
step_figures() {
  scripts/figures.sh --check
}

contains() {
  [[ $1 == *"$2"* ]] || fail "compare.json lacks $2"
}

fail() {
  printf 'check.sh: %s\n' "$1" >&2
  exit 1
}

if (($# == 0)); then
  set -- fmt circles clippy doc licences shell test kernels bench figures
fi
for step in "$@"; do
  declare -F "step_$step" > /dev/null || fail "there is no step '$step': see the head of $0"
done
for step in "$@"; do
  printf '\n=== %s\n' "$step"
  "step_$step"
done
printf '\nAll is well: %s\n' "$*"
