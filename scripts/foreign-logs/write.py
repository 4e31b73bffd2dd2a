"""Python's HdrHistogram: a log, and as JSON what its own reader says that it holds. Its writer knows no tags."""

import json
import sys
from pathlib import Path

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader, HistogramLogWriter

SHAPE = (1, 3_600_000_000_000, 3)
BASE_MS = 1_700_000_000_123


def filled(seed: int) -> HdrHistogram:
    histogram, state = HdrHistogram(*SHAPE), seed
    for _ in range(1_000):
        state = (state * 1103515245 + 12345) % 2**31
        histogram.record_value(20_000 + state % 1_000 * (state % 7_000))
    return histogram


def main(folder: Path) -> None:
    with (folder / "python.hlog").open("w") as file:
        log = HistogramLogWriter(file)
        log.output_log_format_version()
        log.output_base_time(BASE_MS)
        log.output_legend()
        log.base_time = BASE_MS
        for second in range(3):
            histogram = filled(31 + second)
            histogram.set_start_time_stamp(BASE_MS + 500 + 1_000 * second)
            histogram.set_end_time_stamp(BASE_MS + 1_500 + 1_000 * second)
            log.output_interval_histogram(histogram)
    reader = HistogramLogReader(str(folder / "python.hlog"), HdrHistogram(*SHAPE))
    total, starts = HdrHistogram(*SHAPE), []
    while (interval := reader.get_next_interval_histogram()) is not None:
        total.add(interval)
        starts.append(round(interval.get_start_time_stamp()))
    figures = {"count": total.get_total_count()}
    for name, percent in ("p50", 50), ("p99", 99), ("p99.9", 99.9):
        figures[name] = total.get_value_at_percentile(percent)
    figures["max"] = total.get_max_value()
    (folder / "python.json").write_text(json.dumps({"starts_ms": starts, "tags": {"": figures}}, indent=2) + "\n")


main(Path(sys.argv[1]))
