#!/usr/bin/env bash
# Does the bench tell the truth on this machine? It compares the same server with itself, again and again: at most 3 of
# 20 short comparisons may call the primary metric different. And a server that uses 20 us more CPU per message must be
# found worse each time.
#
#     scripts/check-aa.sh                            20 repeats of each, about five minutes
#     scripts/check-aa.sh --repeats 5 --busy 2       fewer: at most 3 in 20 of them, rounded down
#     scripts/check-aa.sh --repeats 20 --out DIR     resumes: what DIR holds already is not measured again
#     scripts/check-aa.sh --arm 'uring'              another server than epoll
#
# Needs Rust and two cpus; the machine should have nothing else to do. Exits 0 when all is as it should be, 1 when not.
set -o errexit -o nounset -o pipefail

usage() {
  sed --quiet '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

repeats=20 busy='' arm=epoll out=''
while (($#)); do
  case $1 in
    --repeats | --busy | --arm | --out)
      if [[ -z ${2-} ]]; then
        echo "check-aa.sh: $1 needs a value" >&2
        exit 2
      fi
      declare "${1#--}=$2"
      ;;
    --help | -h)
      usage
      exit 0
      ;;
    *)
      usage >&2
      exit 2
      ;;
  esac
  shift 2
done
busy=${busy:-$repeats}
if [[ ! $repeats$busy =~ ^[0-9]+$ ]]; then
  echo 'check-aa.sh: --repeats and --busy take whole numbers' >&2
  exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ -z $out ]]; then
  out=$(mktemp --directory)
  trap 'rm --recursive --force "$out"' EXIT
fi
mkdir --parents "$out"

cargo build --locked --release --quiet --package echometer --package echometer-server
echometer=${CARGO_TARGET_DIR:-target}/release/echometer

# 8 blocks of a quarter of a second for each arm: some seven seconds in all.
short=(--blocks 8 --duration 250ms --warmup 100ms --no-floor --quiet)

# Prints the word for the primary metric. A comparison that is not valid has none that counts.
verdict() {
  local folder=$out/$1 status=0
  shift
  if [[ ! -e $folder/compare.json ]]; then
    # Renamed when whole, so that what was broken off is measured again.
    rm --recursive --force "$folder.partial"
    "$echometer" compare "$@" "${short[@]}" --out "$folder.partial" > "$folder.txt" || status=$?
    ((status == 0 || status == 3)) || {
      echo "check-aa.sh: echometer compare $* ended with $status" >&2
      exit 1
    }
    # A Ctrl-C, which the comparison takes as its own: what it then writes is no whole comparison.
    if grep --quiet '"cut_short": true' "$folder.partial/compare.json"; then
      echo "check-aa.sh: stopped; the same --out goes on from here" >&2
      exit 130
    fi
    mv "$folder.partial" "$folder"
  fi
  awk '/"primary": true/ { ours = 1 } ours && /"verdict":/ { gsub(/[",]/, "", $2); print $2; exit }' "$folder/compare.json"
}

declare -A words=()
for ((i = 1; i <= repeats; i++)); do
  word=$(verdict "aa-$(printf %03d "$i")" "a=$arm" "b=$arm" --seed "$i")
  printf 'a/a %d of %d: %s\n' "$i" "$repeats" "$word"
  words[$word]=$((${words[$word]:-0} + 1))
done
different=$((${words[better]:-0} + ${words[worse]:-0} + ${words[small]:-0}))
allowed=$((repeats * 3 / 20))
printf 'the same server twice: %d of %d called different (at most %d)\n' "$different" "$repeats" "$allowed"

found=0
for ((i = 1; i <= busy; i++)); do
  word=$(verdict "busy-$(printf %03d "$i")" "a=$arm" "b=$arm:--delay busy:20us" --seed "$i")
  printf 'busy %d of %d: %s\n' "$i" "$busy" "$word"
  [[ $word != worse ]] || found=$((found + 1))
done
printf 'a server that burns 20 us per message: found worse in %d of %d (must be all)\n' "$found" "$busy"

((different <= allowed && found == busy))
