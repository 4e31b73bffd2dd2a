#!/usr/bin/env bash
# Writes the figures of README.md and docs/*.md from results/, so that no measured number is typed by hand there.
#
#     scripts/figures.sh             writes the pages and docs/figures/
#     scripts/figures.sh --check     changes nothing; exit 1 where they differ from what results/ gives
#
# A page names its figures in comments. What stands between the two comments is written by this script:
#
#     <!-- figure: text RESULT -->              the report as it was printed
#     <!-- figure: ratios RESULT... -->         one row per comparison: the metric that decides, with its interval
#     <!-- figure: table RESULT -->             the table of a folder that scripts/compare-engines.sh made
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
  local check=no made page
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
  mkdir --parents "$made/docs/figures"
  for page in README.md docs/*.md; do
    with_figures "$page" "$made/docs/figures" > "$made/$page"
  done
  if [[ $check == yes ]]; then
    if ! are_the_same "$made"; then
      echo 'figures.sh: the pages or docs/figures/ are not what results/ gives: run scripts/figures.sh' >&2
      exit 1
    fi
  else
    for page in README.md docs/*.md; do
      cmp --silent "$made/$page" "$page" || cp "$made/$page" "$page"
    done
    rm --recursive --force docs/figures
    cp --recursive "$made/docs/figures" docs/figures
  fi
}

# Whether the pages and charts in the folder $1 are those that stand here; shows what differs.
are_the_same() {
  local page same=yes
  for page in README.md docs/*.md; do
    diff --unified "$page" "$1/$page" || same=no
  done
  diff --brief --recursive docs/figures "$1/docs/figures" || same=no
  [[ $same == yes ]]
}

# The page $1 with its figures written anew. Charts go into the folder $2.
with_figures() {
  local page=$1 charts=$2 line lines inside=no
  mapfile -t lines < "$page"
  for line in "${lines[@]}"; do
    case $line in
      '<!-- figure: '*' -->')
        inside=yes
        printf '%s\n\n' "$line"
        line=${line#'<!-- figure: '}
        # shellcheck disable=SC2086 # It is split into words on purpose.
        figure "$page" "$charts" ${line%' -->'}
        ;;
      '<!-- /figure -->')
        inside=no
        printf '\n%s\n' "$line"
        ;;
      *)
        [[ $inside == yes ]] || printf '%s\n' "$line"
        ;;
    esac
  done
  [[ $inside == no ]] || {
    echo "figures.sh: $page has a figure that is not closed" >&2
    exit 1
  }
}

# `figure PAGE FOLDER KIND ARGUMENT...`: one figure of the page. A chart goes into the folder.
figure() {
  local page=$1 folder=$2 kind=$3 result name from_page=
  shift 3
  case $kind in
    text) "$echometer" report "results/$1" --format text | sed 's/^\(.\)/    \1/' ;;
    ratios)
      echo '| load | what decides | ratio | interval | verdict | result |'
      echo '|---|---|---|---|---|---|'
      for result in "$@"; do
        ratios "$result"
      done
      ;;
    table) grep '^|' "results/$1/table.md" ;;
    chart)
      "$echometer" report "results/$1" --svg "$folder/all" > /dev/null
      name=$(basename "$1")
      mv "$folder/all/$2.svg" "$folder/$name-$2.svg"
      rm --recursive "$folder/all"
      # A page of docs/ names it from where the page lies.
      [[ $page == docs/* ]] || from_page=docs/
      printf '![%s of %s](%sfigures/%s-%s.svg)\n' "$2" "$name" "$from_page" "$name" "$2"
      ;;
    *)
      echo "figures.sh: $page asks for a figure of kind '$kind', which there is not" >&2
      exit 1
      ;;
  esac
}

# One row per arm of a comparison: the metric with a star is the one that was named before the run.
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
