#!/usr/bin/env python3
# /// script
# requires-python = ">=3.9"
# dependencies = []
# ///
"""One table and one chart of several comparisons of the same arms: server CPU per message against the baseline.

    scripts/engines_table.py results/.../compare-001/compare.json ...

Writes table.md and chart.svg into a folder engines-NNN beside the first comparison's. Reads nothing but compare.json.
"""

import json
import os
import sys
from pathlib import Path

PRIMARY, RATE = "server_cpu_per_message", "rate"
COLOURS = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377"]  # Tol's bright scheme, safe for all eyes


def main(paths):
    runs = [(Path(path), json.loads(Path(path).read_text())) for path in paths]
    for path, run in runs:
        if run["schema"] != "echometer.compare/1":
            sys.exit(f"engines_table.py: {path} is of the unknown schema {run['schema']}")
    out = next_folder(Path(paths[0]).resolve().parent.parent)
    (out / "table.md").write_text(table(runs))
    (out / "chart.svg").write_text(chart(runs))
    print(f"\n{table(runs)}\nopen: {os.path.relpath(out)}/table.md (chart.svg beside it)")


def next_folder(parent):
    numbers = [int(folder.name[-3:]) for folder in parent.glob("engines-[0-9][0-9][0-9]")]
    folder = parent / f"engines-{max(numbers, default=0) + 1:03}"
    folder.mkdir()
    return folder


def connections(run):
    n = run["design"]["load"]["connections"]
    return "1 connection" if n == 1 else f"{n:,} connections"


def metric(run, arm, name):
    """One arm's entry; for the baseline, which has none, a stand-in made of its own value."""
    of_name = [entry for entry in run["metrics"] if entry["name"] == name]
    for entry in of_name:
        if entry["arm"] == arm:
            return entry
    value = of_name[0]["baseline_value"] if of_name else None
    return {"arm_value": value, "ratio": 1.0, "ci_low": None, "ci_high": None, "verdict": "baseline"}


def table(runs):
    arms = [arm["name"] for arm in runs[0][1]["arms"]]
    machine = runs[0][1]["machine"]
    lines = [
        f"Server CPU per message, and its ratio to {arms[0]} with the interval of the comparison; {machine['cpu_model']},"
        f" kernel {machine['kernel']}, one cpu per side.",
        "",
        "| engine | " + " | ".join(connections(run) for _, run in runs) + " |",
        "|---|" + "---|" * len(runs),
    ]
    for arm in arms:
        cells = []
        for _, run in runs:
            cpu, rate = metric(run, arm, PRIMARY), metric(run, arm, RATE)
            if cpu["arm_value"] is None:
                cells.append("-")
                continue
            cell = f"{cpu['arm_value'] / 1000:.2f} us"
            if cpu["ci_low"] is not None:
                cell += f", x{cpu['ratio']:.3f} ({cpu['ci_low']:.3f} - {cpu['ci_high']:.3f}) {cpu['verdict']}"
            if rate["arm_value"] is not None:
                cell += f"; {rate['arm_value'] / 1000:.0f} k/s"
            cells.append(cell)
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    lines.append("")
    for path, run in runs:
        reasons = "; ".join(run["verdict"]["reasons"])
        commit = run["machine"].get("commit") or "unknown"
        lines.append(f"- {path.parent.name}: {run['verdict']['status']}{': ' + reasons if reasons else ''} (commit {commit})")
    return "\n".join(lines) + "\n"


def chart(runs):
    """Grouped bars of the ratios with their intervals; the line is the baseline."""
    arms = [arm["name"] for arm in runs[0][1]["arms"]][1:]
    bars = [(arm, run, metric(run, arm, PRIMARY)) for _, run in runs for arm in arms]
    top = max([1.2] + [bar[2]["ci_high"] or bar[2]["ratio"] or 0 for bar in bars]) * 1.05
    width, height, left, base = 130 + 150 * len(runs), 320, 50, 270
    y = lambda ratio: base - ratio / top * (base - 30)
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="8" y="16">server CPU per message / {runs[0][1]["arms"][0]["name"]} (less is better)</text>',
    ]
    for tick in [step / 4 for step in range(int(top * 4) + 1)]:
        ink = "#333" if tick == 1 else "#ddd"
        svg.append(f'<line x1="{left}" x2="{width - 90}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="{ink}"/>')
        svg.append(f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for index, (arm, run, entry) in enumerate(bars):
        group, place = divmod(index, len(arms))
        x = left + 12 + group * 140 + place * (116 / len(arms))
        if entry["ratio"]:
            step = 116 / len(arms) - 4
            svg.append(f'<rect x="{x:.1f}" y="{y(entry["ratio"]):.1f}" width="{step:.1f}"'
                       f' height="{base - y(entry["ratio"]):.1f}" fill="{COLOURS[place % len(COLOURS)]}"/>')
            if entry["ci_low"] is not None:
                middle = x + step / 2
                svg.append(f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="{y(entry["ci_low"]):.1f}"'
                           f' y2="{y(entry["ci_high"]):.1f}" stroke="black"/>')
        if place == 0:
            svg.append(f'<text x="{x + 58:.0f}" y="{base + 18}" text-anchor="middle">{connections(run)}</text>')
    for place, arm in enumerate(arms):
        svg.append(f'<rect x="{width - 82}" y="{40 + 18 * place}" width="10" height="10" fill="{COLOURS[place % len(COLOURS)]}"/>')
        svg.append(f'<text x="{width - 68}" y="{49 + 18 * place}">{arm}</text>')
    return "\n".join(svg + ["</svg>"]) + "\n"


if __name__ == "__main__":
    if not sys.argv[1:] or sys.argv[1].startswith("-"):
        asked = sys.argv[1:2] in (["--help"], ["-h"])
        print(__doc__, file=sys.stdout if asked else sys.stderr)
        sys.exit(0 if asked else 2)
    main(sys.argv[1:])
