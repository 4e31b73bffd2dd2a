#!/usr/bin/env bash
# Makes the histogram logs of other tools in report/tests/data anew: each by the tool's own library, with a JSON file of
# what that library says they hold. Needs java (11 or newer) with Debian's libhdrhistogram-java, node with npm, and
# python3 with venv; the libraries of the last two come from their registries into a temporary folder.
#
#     scripts/foreign-logs.sh [DIR]        default: report/tests/data
#
# Go's library is not among them: Debian has only one that writes no logs (golang-github-codahale-hdrhistogram-dev).
set -o errexit -o nounset -o pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
into=$(realpath "${1:-$here/../report/tests/data}")
jar=${HDRHISTOGRAM_JAR:-/usr/share/java/hdrhistogram.jar}
[[ -f $jar ]] || { echo "foreign-logs.sh: no $jar: apt-get install libhdrhistogram-java, or name one in HDRHISTOGRAM_JAR" >&2; exit 1; }
mkdir --parents "$into"
work=$(mktemp --directory)
trap 'rm --recursive --force "$work"' EXIT

java -classpath "$jar" "$here/foreign-logs/Write.java" "$into"

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet hdrhistogram==0.10.8
"$work/venv/bin/python" "$here/foreign-logs/write.py" "$into"

npm install --silent --no-fund --no-audit --prefix "$work" hdr-histogram-js@3.0.1 native-hdr-histogram@1.0.0
NODE_PATH="$work/node_modules" node "$here/foreign-logs/write.js" "$into"

gzip --no-name --keep --force --best "$into/java.hlog"
ls -l "$into"
