#!/usr/bin/env python3
# /// script
# requires-python = ">=3.9"
# dependencies = ["hdrhistogram", "hdr-plot"]
# ///
"""Reads run.hlog and run.hgrm of result folders with readers that are not ours, and compares them with run.json: Python's
HdrHistogram; hdr-plot; Java's HistogramLogProcessor (Debian: libhdrhistogram-java) and JavaScript's reader (npm:
hdr-histogram-js, found by NODE_PATH), where they are there. Logs without a run beside them (a merged one) are read by all of
them, and these are compared with each other. Exit 1 where they differ, 2 for wrong usage.

    uv run scripts/check-logs.py DIR_OR_HLOG...
"""

import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

try:
    from hdrh.histogram import HdrHistogram
    from hdrh.log import HistogramLogReader
except ImportError:
    sys.exit("check-logs.py: the package hdrhistogram is missing: run this by `uv run`, or install it (pip install hdrhistogram)")

SHAPE = (1, 60_000_000_000, 3)


def sums(log: Path) -> dict[str, HdrHistogram]:
    """All intervals of each tag added up."""
    reader = HistogramLogReader(str(log), HdrHistogram(*SHAPE))
    found: dict[str, HdrHistogram] = {}
    while (interval := reader.get_next_interval_histogram()) is not None:
        found.setdefault(interval.get_tag(), HdrHistogram(*SHAPE)).add(interval)
    return found


JAVA = Path(os.environ.get("HDRHISTOGRAM_JAR", "/usr/share/java/hdrhistogram.jar"))
JS = """
const js = require("hdr-histogram-js");
const reader = new js.HistogramLogReader(require("fs").readFileSync(process.argv[1], "utf8"), 64);
const sums = {};
for (let next; (next = reader.nextIntervalHistogram()) != null;) {
  const tag = next.tag && next.tag !== "NO TAG" ? next.tag : "";
  if (sums[tag]) sums[tag].add(next); else sums[tag] = next;
}
const figures = {};
for (const [tag, sum] of Object.entries(sums)) {
  const at = (percent) => Number(sum.getValueAtPercentile(percent));
  figures[tag] = { count: Number(sum.totalCount), p50: at(50), p99: at(99), max: Number(sum.maxValue) };
}
console.log(JSON.stringify(figures));
"""


def by_python(log: Path) -> dict[str, dict[str, int]]:
    return {
        tag or "": {
            "count": histogram.get_total_count(),
            "p50": histogram.get_value_at_percentile(50),
            "p99": histogram.get_value_at_percentile(99),
            "max": histogram.get_max_value(),
        }
        for tag, histogram in sums(log).items()
    }


def by_java(log: Path, tags) -> dict[str, dict[str, float]] | None:
    """What HistogramLogProcessor prints of each tag: the count, and the maximum in ns."""
    if not (shutil.which("java") and JAVA.exists()):
        return None
    found = {}
    for tag in tags:
        command = ["java", "-classpath", str(JAVA), "org.HdrHistogram.HistogramLogProcessor", "-i", str(log), "-outputValueUnitRatio", "1"]
        run = subprocess.run(command + (["-tag", tag] if tag else []), capture_output=True, text=True)
        # Of the whole, behind the course over time.
        summary = re.findall(r"#\[Max\s+=\s+([0-9.]+), Total count\s+=\s+([0-9]+)\]", run.stdout)
        if run.returncode != 0 or not summary:
            found[tag] = {"count": -1, "max": -1}
        else:
            found[tag] = {"count": int(summary[-1][1]), "max": float(summary[-1][0])}
    return found


def by_javascript(log: Path) -> dict[str, dict[str, int]] | None:
    if not shutil.which("node") or subprocess.run(["node", "-e", 'require("hdr-histogram-js")'], capture_output=True).returncode:
        return None
    try:
        run = subprocess.run(["node", "-e", JS, str(log)], capture_output=True, text=True, check=True, timeout=60)
    except subprocess.TimeoutExpired:
        return {}
    return json.loads(run.stdout)


def log_differences(log: Path):
    """A line for each figure that another reader has otherwise than Python's."""
    python = by_python(log)
    for name, found in ("java", by_java(log, python)), ("javascript", by_javascript(log)):
        if found is None:
            print(f"{log}: {name} is not there and was not asked", file=sys.stderr)
            continue
        if set(found) != set(python):
            yield f"{log}: {name} has the tags {sorted(found)}, python {sorted(python)}"
        for tag in set(found) & set(python):
            for figure, value in found[tag].items():
                if value != python[tag][figure]:
                    yield f"{log}: {tag or 'untagged'} {figure}: {name} has {value}, python {python[tag][figure]}"


def spectrum_differences(spectrum: Path):
    """Lines that hdr-plot drops, and its figures where they are none of the file's."""
    try:
        # It asks for its own version by a module that setuptools no longer has.
        sys.modules.setdefault("pkg_resources", types.ModuleType("pkg_resources"))
        from hdr_plot import hdr_plot
    except ImportError as error:
        print(f"{spectrum}: hdr-plot was not asked ({error})", file=sys.stderr)
        return
    text = spectrum.read_text()
    rows = [line.split() for line in text.splitlines()[2:] if not line.startswith("#")]
    plotted = hdr_plot.parse_percentiles(str(spectrum))
    if [float(row[0]) for row in rows] != list(plotted["Latency"]):
        yield f"{spectrum}: hdr-plot takes {len(plotted)} of {len(rows)} lines"
    said = hdr_plot.parse_metadata(str(spectrum))
    last = plotted.iloc[-1]
    if last["Percentile"] != 1 or last["TotalCount"] != int(said["Total count"]):
        yield f"{spectrum}: the last line is {list(last)}, the count {said['Total count']}"


def differences(folder: Path):
    """A line for each figure that the log has and run.json has otherwise."""
    yield from log_differences(folder / "run.hlog")
    yield from spectrum_differences(folder / "run.hgrm")
    end = json.loads((folder / "run.json").read_text())["end"]
    tags = sums(folder / "run.hlog")
    for tag, histogram in tags.items():
        summary = end[f"{tag}_ns"]
        read = {
            "count": histogram.get_total_count(),
            "p50": histogram.get_value_at_percentile(50),
            "p99": histogram.get_value_at_percentile(99),
            "max": histogram.get_max_value(),
        }
        for name, value in read.items():
            # Null where too few samples lie above the quantile.
            if summary[name] is not None and summary[name] != value:
                yield f"{folder}: {tag} {name}: run.json has {summary[name]}, the log {value}"
    latency = tags["latency"]
    count = latency.get_total_count()
    spectrum = (folder / "run.hgrm").read_text().splitlines()
    for line in spectrum:
        words = line.split()
        if not words or line.startswith("#") or words[0] == "Value":
            continue
        value, percent = float(words[0]) * 1e6, float(words[1]) * 100
        # Readers differ by one sample in what rank a percentile has.
        low = latency.get_value_at_percentile(max(0, percent - 100 / count))
        high = latency.get_value_at_percentile(min(100, percent + 100 / count))
        if not low - 1 <= value <= high + 1:
            yield f"{folder}: run.hgrm at {percent} %: {value}, the log {low} to {high}"


def main(folders: list[str]) -> int:
    if not folders or folders[0].startswith("-"):
        print(__doc__, file=sys.stdout if folders[:1] in (["--help"], ["-h"]) else sys.stderr)
        return 0 if folders[:1] in (["--help"], ["-h"]) else 2
    found = []
    for path in map(Path, folders):
        if path.is_dir() and not (path / "run.json").exists():
            for spectrum in sorted(path.glob("*.hgrm")):
                found.extend(spectrum_differences(spectrum))
        else:
            found.extend(differences(path) if path.is_dir() else log_differences(path))
    print("\n".join(found) if found else "every reader has the same figures")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
