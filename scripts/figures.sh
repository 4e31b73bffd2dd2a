#!/usr/bin/env bash
# Writes the figures of README.md anew from results/: nothing that was measured is typed by hand.
#
#     scripts/figures.sh             writes README.md and docs/figures/
#     scripts/figures.sh --check     changes nothing; exit 1 where they differ from what results/ gives
#
# README.md names its figures in comments, and what lies up to the closing comment is written from them:
#
#     <!-- figure: text RESULT -->              the report as it was printed
#     <!-- figure: ratios RESULT... -->         a row a comparison: what decides, with its interval
#     <!-- figure: chart RESULT CHART -->       a chart as docs/figures/RESULT-CHART.svg
#     <!-- /figure -->
#
# RESULT is a folder below results/; `echometer report RESULT --svg DIR` shows which charts it has.
set -o errexit -o nounset -o pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
help_if_asked "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# No comma for a point, whoever runs it.
export LC_ALL=C

main() {
  local check=no made
  case ${1-} in
    '') ;;
    --check) check=yes ;;
    *)
      echo "figures.sh: there is no flag '$1'; it takes --check or nothing" >&2
      exit 2
      ;;
  esac
  cargo build --quiet --locked --release --package echometer
  echometer=${CARGO_TARGET_DIR:-target}/release/echometer
  made=$(mktemp --directory)
  # shellcheck disable=SC2064 # The folder's name is known now and not at the end.
  trap "rm --recursive --force '$made'" EXIT
  mkdir --parents "$made/figures"
  readme "$made/figures" > "$made/README.md"
  if [[ $check == yes ]]; then
    if ! diff --unified README.md "$made/README.md" || ! figures_are_the_same "$made/figures"; then
      echo 'figures.sh: README.md or docs/figures/ is not what results/ gives: run scripts/figures.sh' >&2
      exit 1
    fi
  else
    cp "$made/README.md" README.md
    if compgen -G "$made/figures/*" > /dev/null; then
      rm --recursive --force docs/figures
      mkdir --parents docs/figures
      cp "$made"/figures/* docs/figures/
    fi
  fi
}

figures_are_the_same() {
  if compgen -G "$1/*" > /dev/null; then
    diff --brief --recursive docs/figures "$1"
  fi
}

# README.md with its figures made anew; charts go into the folder $1.
readme() {
  local line inside=no
  while IFS= read -r line; do
    case $line in
      '<!-- figure: '*' -->')
        inside=yes
        printf '%s\n\n' "$line"
        line=${line#'<!-- figure: '}
        # shellcheck disable=SC2086 # It is split into words on purpose.
        figure "$1" ${line%' -->'}
        ;;
      '<!-- /figure -->')
        inside=no
        printf '\n%s\n' "$line"
        ;;
      *)
        [[ $inside == yes ]] || printf '%s\n' "$line"
        ;;
    esac
  done < README.md
  [[ $inside == no ]] || {
    echo 'figures.sh: README.md has a figure that is not closed' >&2
    exit 1
  }
}

figure() {
  local folder=$1 kind=$2 result
  shift 2
  case $kind in
    text) "$echometer" report "results/$1" --format text | sed 's/^\(.\)/    \1/' ;;
    ratios)
      echo '| load | what decides | ratio | interval | verdict | result |'
      echo '|---|---|---|---|---|---|'
      for result in "$@"; do
        ratios "$result"
      done
      ;;
    chart)
      "$echometer" report "results/$1" --svg "$folder/all" > /dev/null
      mv "$folder/all/$2.svg" "$folder/$(basename "$1")-$2.svg"
      rm --recursive "$folder/all"
      printf '![%s of %s](docs/figures/%s-%s.svg)\n' "$2" "$(basename "$1")" "$(basename "$1")" "$2"
      ;;
    *)
      echo "figures.sh: README.md asks for a figure of kind '$kind', which there is not" >&2
      exit 1
      ;;
  esac
}

# A row for each arm of a comparison: the metric that was named before the run is the one with a star.
ratios() {
  local load
  load=$("$echometer" report "results/$1" --format markdown | sed --quiet '3s/;.*//p')
  "$echometer" report "results/$1" --format csv | awk -F ',' -v load="$load" -v result="$(basename "$1")" '
    $2 ~ /\*$/ {
      sub(/ \*$/, "", $2)
      interval = $6 == "" ? "-" : sprintf("%.3f - %.3f", $6, $7)
      sub(/:.*/, "", $10)
      gsub(/"/, "", $10)
      printf "| %s | %s, %s | %.3f | %s | %s | %s |\n", load, $1, $2, $5, interval, $10, result
    }'
}

main "$@"
