#!/usr/bin/env bash
# Two builds of the load generator against each other: does one need more CPU per message, or is it slower? In each pair
# both run for a second, in random order, against one epoll server: the server on cpu 0, the client on cpu 1.
#
#     scripts/compare-clients.sh OLD NEW                  two programs echometer-loadgen; 30 pairs, a good minute
#     scripts/compare-clients.sh --pairs 60 OLD NEW
#     scripts/compare-clients.sh OLD NEW -c 1000 -s 4KiB  flags go through to both; without any: -c 50 -s 64
#     SERVER=path/to/echometer-server scripts/compare-clients.sh OLD NEW
#
# Says NEW / OLD of the client's CPU time per message and of the rate, each with a 95 % interval: Hodges-Lehmann estimate
# and Wilcoxon signed-rank interval over the pairs' log ratios. A run that fails is an error; one that merely is not valid
# by its own verdict counts, and is told.
#
# Needs two cpus and Python 3.9; Rust, where SERVER names no server. Exits 0 when it could measure, whatever it found.
set -o errexit -o nounset -o pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
help_if_asked "$@"

usage() {
  echo "compare-clients.sh: $1: scripts/compare-clients.sh --help says how it is called" >&2
  exit 2
}

pairs=30
programs=()
flags=()
while (($#)); do
  case $1 in
    --pairs)
      pairs=${2-}
      shift
      ;;
    --pairs=*) pairs=${1#*=} ;;
    -*)
      ((${#programs[@]} == 2)) || usage "$1 comes before the two programs"
      flags=("$@")
      break
      ;;
    *) programs+=("$1") ;;
  esac
  shift || true
done
((${#programs[@]} == 2)) || usage "two programs are compared"
# With fewer than 6 pairs no interval of 95 % exists.
[[ $pairs =~ ^[0-9]{1,4}$ ]] || usage "--pairs is a number from 6 to 1000"
((6 <= 10#$pairs && 10#$pairs <= 1000)) || usage "--pairs is a number from 6 to 1000"
pairs=$((10#$pairs))
for program in "${programs[@]}"; do
  [[ -x $program && ! -d $program ]] || usage "$program is no program"
done
((${#flags[@]})) || flags=(-c 50 -s 64)
(($(nproc) >= 2)) || {
  echo "compare-clients.sh: a client beside its server needs two cpus" >&2
  exit 1
}

server=${SERVER-}
if [[ -z $server ]]; then
  root=$(dirname "${BASH_SOURCE[0]}")/..
  cargo build --locked --release --manifest-path "$root/Cargo.toml" --package echometer-server
  server=${CARGO_TARGET_DIR:-$root/target}/release/echometer-server
fi

folder=$(mktemp --directory)
server_pid=
# shellcheck disable=SC2317 # It is called when the script ends.
end() {
  [[ -z $server_pid ]] || kill "$server_pid" 2> /dev/null || true
  rm --recursive --force "$folder"
}
trap end EXIT
trap 'exit 130' INT TERM

"$server" --engine epoll --cpus 0 --listen 127.0.0.1:0 > "$folder/server" 2>&1 &
server_pid=$!
address=
for ((wait = 0; wait < 100; wait++)); do
  address=$(grep --only-matching --max-count=1 '127\.0\.0\.1:[0-9]*' "$folder/server" || true)
  [[ -z $address ]] || break
  sleep 0.1
done
[[ -n $address ]] || {
  echo "compare-clients.sh: the server does not start: $(< "$folder/server")" >&2
  exit 1
}

# `measure NAME PROGRAM`: one run, a line in the table.
measure() {
  local status=0
  "$2" "$address" --cpus 1 --duration 1s --warmup 100ms "${flags[@]}" --quiet --json > "$folder/run.json" || status=$?
  # 3: measured, but not valid by its own verdict.
  ((status == 0 || status == 3)) || {
    echo "compare-clients.sh: $2 ended with $status" >&2
    exit 1
  }
  python3 -c '
import json, sys
run = json.load(open(sys.argv[1]))
end = run["end"]
print(sys.argv[2], end["client"]["cpu_ns_per_message"], end["rate_per_s"], run["verdict"]["status"])
' "$folder/run.json" "$1" >> "$folder/table"
}

for ((pair = 1; pair <= pairs; pair++)); do
  if ((RANDOM % 2)); then
    measure old "${programs[0]}"
    measure new "${programs[1]}"
  else
    measure new "${programs[1]}"
    measure old "${programs[0]}"
  fi
  [[ ! -t 2 ]] || printf '\r%d of %d pairs' "$pair" "$pairs" >&2
done
[[ ! -t 2 ]] || printf '\r\033[K' >&2

echo "old  ${programs[0]}"
echo "new  ${programs[1]}"
echo "load ${flags[*]}, 1s each, against ${server##*/} --engine epoll"
python3 - "$folder/table" << 'PYTHON'
import math
import statistics
import sys

rows = [line.split() for line in open(sys.argv[1])]
runs = {name: [row for row in rows if row[0] == name] for name in ("old", "new")}


def signed_rank_quantile(n):
    """The greatest k such that P(W < k) <= 2.5 %, W being the signed-rank statistic of n pairs without a difference."""
    ways = [1]
    for rank in range(1, n + 1):
        longer = ways + [0] * rank
        for total, count in enumerate(ways):
            longer[total + rank] += count
        ways = longer
    k, below = 0, 0
    while (below + ways[k]) * 40 <= 1 << n:
        below += ways[k]
        k += 1
    return k


def compare(title, column, unit, scale):
    old, new = ([float(run[column]) for run in runs[name]] for name in ("old", "new"))
    logs = [math.log(b / a) for a, b in zip(old, new)]
    walsh = sorted((logs[i] + logs[j]) / 2 for i in range(len(logs)) for j in range(i, len(logs)))
    k = signed_rank_quantile(len(logs))
    low, middle, high = (math.exp(x) for x in (walsh[k - 1], statistics.median(walsh), walsh[-k]))
    medians = (statistics.median(x) * scale for x in (old, new))
    print("{:15} old {:10.2f} {}  new {:10.2f} {}  new/old {:.4f} (95 %: {:.4f} to {:.4f})".format(
        title, *(x for m in medians for x in (m, unit)), middle, low, high))


print(f"{len(runs['old'])} pairs, medians and the ratio within pairs:")
compare("CPU per message", 1, "us", 1e-3)
compare("rate", 2, "k/s", 1e-3)
for name in ("old", "new"):
    invalid = [run[3] for run in runs[name] if run[3] != "valid"]
    if invalid:
        kinds = ", ".join(f"{invalid.count(kind)} {kind}" for kind in sorted(set(invalid)))
        print(f"{name}: {len(invalid)} of {len(runs[name])} runs not valid by their own verdict ({kinds})")
PYTHON
