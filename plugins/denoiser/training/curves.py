"""Draw the curves of training runs: `python curves.py RUN/log.jsonl ... --out curves.png`. Needs matplotlib."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt


def main() -> None:
    """Draw one panel for each number that the logs hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    runs = {file.parent.name: [json.loads(line) for line in file.read_text().splitlines()] for file in options.logs}
    names = sorted({name for lines in runs.values() for line in lines for name in line} - {"step", "cpu_s"})
    _, panels = plt.subplots(len(names), 1, figsize=(9, 2.2 * len(names)), squeeze=False)
    for name, panel in zip(names, panels[:, 0], strict=True):
        for run, lines in runs.items():
            points = [(line["step"], line[name]) for line in lines if name in line]
            if points:
                panel.plot(*zip(*points, strict=True), label=run)
        panel.set_ylabel(name)
        panel.legend()
    plt.xlabel("step")
    plt.tight_layout()
    plt.savefig(options.out)


if __name__ == "__main__":
    main()
