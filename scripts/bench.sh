#!/usr/bin/env bash
# The main job: builds Echometer, then compares epoll with io_uring on this machine, in about a minute.
#
#     scripts/bench.sh             defaults: one cpu for the server, another for the client
#     scripts/bench.sh --quick     6 short blocks
#     scripts/bench.sh --help      every flag of `echometer compare`; they all go through
#
# Needs Rust, two cpus and Linux 6.1 or later (for io_uring). Results go to results/ beside this folder; relative
# paths in flags count from the repository's root. Exits as `echometer compare` does: 0 valid, 1 could
# not do it, 2 usage, 3 measured but not valid.
set -o errexit -o nounset -o pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

missing() {
  printf 'bench.sh: %s\n' "$@" >&2
  exit 1
}

# All that can be told before a build of minutes is told now.
command -v cargo > /dev/null || missing \
  "cargo is missing, and Echometer is built from source." \
  "Install Rust 1.89 or later (https://rustup.rs), open a new shell, and run this again."
command -v cc gcc clang > /dev/null || missing \
  "a C compiler (cc) is missing, which cargo links with." \
  "Install one (Debian, Ubuntu: apt-get install gcc libc6-dev; Fedora: dnf install gcc), and run this again."

if (($(nproc --all) < 2)); then
  missing \
    "this machine has one cpu. Server and client need one each, or each would measure the other." \
    "Give the (virtual) machine a second cpu, or compare from another machine: echometer compare tcp:HOST:PORT ..."
elif (($(env --unset=OMP_NUM_THREADS --unset=OMP_THREAD_LIMIT nproc) < 2)); then
  missing \
    "this shell may use one cpu only. Server and client need one each, or each would measure the other." \
    "Widen its affinity mask (taskset --cpu-list --pid 0-$(($(nproc --all) - 1)) \$\$) or the container's cpuset."
fi

# Only certain signs count here; what else can forbid io_uring (seccomp, memlock) the server itself names.
if [[ -r /proc/kallsyms ]] && ! grep --quiet sys_io_uring_setup /proc/kallsyms \
  && grep --quiet sys_epoll_create /proc/kallsyms; then
  missing \
    "this kernel ($(uname --kernel-release)) has no io_uring." \
    "Boot Linux 6.1 or later, built with CONFIG_IO_URING=y; every current distribution's is."
fi
if [[ -r /proc/sys/kernel/io_uring_disabled && $(< /proc/sys/kernel/io_uring_disabled) == 2 ]]; then
  missing \
    "io_uring is switched off here (sysctl kernel.io_uring_disabled is 2)." \
    "Allow it, as root: sysctl --write kernel.io_uring_disabled=0"
fi

# shellcheck source=scripts/common.sh
source scripts/common.sh
name_commit

cargo build --locked --release --package echometer --package echometer-server
exec "${CARGO_TARGET_DIR:-target}/release/echometer" compare epoll uring "$@"
