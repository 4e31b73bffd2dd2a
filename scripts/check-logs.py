#!/usr/bin/env python3
# /// script
# requires-python = ">=3.9"
# dependencies = ["hdrhistogram"]
# ///
"""Reads run.hlog and run.hgrm of result folders with the Python HdrHistogram, a reader that is not ours, and compares
them with run.json: exit 1 where they differ, 2 for wrong usage.

    uv run scripts/check-logs.py DIR...
"""

import json
import sys
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


def differences(folder: Path):
    """A line for each figure that the log has and run.json has otherwise."""
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
    found = [line for folder in folders for line in differences(Path(folder))]
    print("\n".join(found) if found else "the logs hold what run.json says")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
