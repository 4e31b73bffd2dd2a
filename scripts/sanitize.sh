#!/usr/bin/env bash
# Runs all tests of the ring under AddressSanitizer. The property test that misuses the ring runs as many cases as
# --cases says.
#
#     scripts/sanitize.sh                every test of the ring, with 500 cases of misuse
#     scripts/sanitize.sh --cases 5000   with 5,000
#
# The sanitizer sees what our own code does with freed memory, but not what the kernel does with it. So freed memory is
# filled with a byte that no connection sends, and a peer that receives this byte fails the test.
#
# Needs a Rust toolchain that brings the sanitizer's runtime: rustup's do on x86_64 and aarch64. The flag is unstable, so
# the compiler is told to take it (RUSTC_BOOTSTRAP). Builds into target/asan.
set -o errexit -o nounset -o pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
help_if_asked "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cases=500
while (($# > 0)); do
  case $1 in
    --cases) cases=${2:?"--cases takes a number"} && shift 2 ;;
    *) echo "sanitize.sh: '$1' is no flag: see --help" >&2 && exit 2 ;;
  esac
done

target=$(rustc --version --verbose | sed --quiet 's/^host: //p')
export RUSTC_BOOTSTRAP=1 RUSTFLAGS='-Zsanitizer=address'
# Freed memory is filled, and kept from being used again; leaks are looked for by other means: a ring that can't be
# brought to rest leaks on purpose.
export ASAN_OPTIONS='max_free_fill_size=1048576:free_fill_byte=238:detect_leaks=0'
export PROPTEST_CASES=$cases
cargo test --locked --package echometer-ring --target "$target" --target-dir target/asan --tests
