"""Measure the table of EXEMPLAR.md on real clips: `python -m benchmarks.exemplar_table [--data FOLDER]`.

Every job is a whole `dub()` to a file, in a process of its own; the mouth is found again in that file. The sound of a
job is another take of the source's own speaker, so the true mouth is known, and the audio model never saw the speaker
(`pairs.py` says how clips are paired, and which speakers each net was trained without).

r against the true mouth is pooled over a speaker's clips, each less its mean (`metrics.pooled_pearson`), at lag 0; the
table's figure is the mean over speakers, each counting once. Flicker and sharpness are the mean over jobs, of the
written file and before the encoder; the worse of the two counts. Speed is the whole second pass: decode, generate,
composite, encode.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.job import Figures, run_job
from benchmarks.pairs import DATA, FOLDS, SHIPPED, Pair, jobs_of, make_pairs, speakers_seen, speed_jobs
from lipsync_core.paths import CACHE_VARIABLE
from lipsync_core.quality import metrics

KINDS: Final = ("adapted", "plain", "shuffled", "borrowed")

_VERDICTS: Final = {True: "pass", False: "MISS", None: ""}

Results = Mapping[str, Sequence[tuple[Pair, Figures]]]  # by kind


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; `passed` is None where the design sets no figure."""

    what: str
    measured: str
    reach: str
    passed: bool | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the jobs, print the table, and return 0 whether or not each figure is reached."""
    parser = argparse.ArgumentParser(description="Measure the table of EXEMPLAR.md on real clips.")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the clips and their index.csv")
    parser.add_argument("--speakers", default="", help="only these, separated by commas")
    parser.add_argument(
        "--weights", action="append", default=[], metavar="FOLD=FILE", help="a net trained without FOLD's speakers"
    )
    parser.add_argument("--out", type=Path, help="write every figure of every job to this JSON file")
    parser.add_argument("--keep", type=Path, help="make the sources and outputs in this folder and leave them there")
    options = parser.parse_args(arguments)
    weights: dict[str, Path | None] = {SHIPPED: None}
    for given in options.weights:
        fold, _, file = given.partition("=")
        if fold not in FOLDS or not Path(file).is_file():
            parser.error(f"--weights {given}: FOLD is one of {', '.join(FOLDS)}, and FILE must exist")
        weights[fold] = Path(file).resolve()
    for fold, net in weights.items():
        seen = speakers_seen(net).intersection(FOLDS[fold])
        if seen:
            parser.error(f"the net of fold {fold} was trained on {', '.join(sorted(seen))}")
    data = options.data.resolve()
    if not (data / "index.csv").is_file():
        parser.error(f"--data {data}: there is no index.csv")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="lipsync-bench-") as temporary:
        os.environ[CACHE_VARIABLE] = str(Path(temporary) / "cache")  # the jobs' too: nothing is known beforehand
        folder = (options.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        only = frozenset(filter(None, options.speakers.split(",")))
        results = _run(make_pairs(data, folder, weights, only), data, folder, weights)
        speed = {size: run_job(job) for size, job in speed_jobs(data, folder).items()}
    rows = table(results, speed)
    _say(f"\n{_counts(results)}; {time.perf_counter() - began:.0f} s\n")
    _say("\n".join(as_lines(rows)))
    if options.out:
        options.out.write_text(json.dumps(_details(results, speed, rows), indent=1), encoding="utf-8")
    return 0


def _run(pairs: Sequence[Pair], data: Path, folder: Path, weights: Mapping[str, Path | None]) -> Results:
    """Run every job, saying how each went."""
    results: dict[str, list[tuple[Pair, Figures]]] = {kind: [] for kind in KINDS}
    for number, pair in enumerate(pairs, 1):
        jobs = jobs_of(pair, data, folder, weights[pair.fold])
        for kind, job in jobs.items():
            figures = run_job(job)
            results[kind].append((pair, figures))
            r = metrics.pooled_pearson(against_truth(figures, figures.shown))
            asked = metrics.pearson(*_both(figures.asked, figures.shown))
            _say(
                f"[{number}/{len(pairs)}] {job.name}: {figures.frames} frames in {figures.seconds:.1f} s, "
                f"r asked {asked:.2f}, r true {r:.2f}, flicker {figures.flicker:.2f}, sharpness {figures.sharpness:.2f}"
            )
    return results


def table(results: Results, speed: Mapping[str, Figures]) -> list[Row]:
    """Return the rows of EXEMPLAR.md's table."""
    adapted = [figures for _, figures in results["adapted"]]
    every = [figures for kind in KINDS for _, figures in results[kind]]
    asked = np.array([metrics.pearson(*_both(f.asked, f.shown)) for f in adapted])
    lags = np.array([abs(metrics.best_lag(*_both(f.shown, f.asked))) for f in adapted])
    plain, own = (list(by_speaker(results[kind], "shown").values()) for kind in ("plain", "adapted"))
    borrowed = list(by_speaker(results["borrowed"], "shown").values())
    untouched = float(np.mean(list(by_speaker(results["adapted"], "base").values())))
    shuffled = float(np.mean(list(by_speaker(results["shuffled"], "shown").values())))
    flicker = np.array([(f.flicker, f.raw_flicker) for f in adapted])
    sharp = np.array([(f.sharpness, f.raw_sharpness) for f in adapted])
    memory = max(f.peak_rss_bytes for f in speed.values()) / 1e9  # of jobs that nothing watched
    outside = sum(f.changed_outside for f in every)
    square, portrait = speed["512x512"], speed["1080x1920"]
    return [
        Row(
            "opening, re-detected, against the shape asked for",
            f"r {asked.mean():.2f} mean, {asked.min():.2f} min",
            "≥ .90 mean",
            bool(asked.mean() >= 0.9),
        ),
        Row(
            "lag against the shape asked for",
            f"{np.median(lags):.0f} frames median, {lags.max()} most",
            "≤ 1",
            bool(lags.max() <= 1),
        ),
        Row("opening against the true mouth, no adaptation", _spread(plain), "≥ .55", bool(np.mean(plain) >= 0.55)),
        Row(
            "the same, 3 s clips whole, on another speaker's face",
            _spread(borrowed) if borrowed else "–",
            "≥ .55",
            bool(np.mean(borrowed) >= 0.55) if borrowed else None,
        ),
        Row("opening against the true mouth, own-voice adaptation", _spread(own), "≥ .60", bool(np.mean(own) >= 0.6)),
        Row(
            "the same for untouched video / shuffled audio",
            f"r {untouched:.2f} / {shuffled:.2f}",
            "within ±.15",
            abs(untouched) <= 0.15 and abs(shuffled) <= 0.15,
        ),
        Row("movement (deviation of the opening) against the true mouth", _movement(adapted), "", None),
        Row(
            "flicker against the source",
            _ratios(flicker, flicker[:, 0].max(), "most"),
            "≤ 1.15 ×",
            bool(flicker.mean(axis=0).max() <= 1.15),
        ),
        Row(
            "sharpness against the source",
            _ratios(sharp, sharp[:, 0].min(), "least"),
            "≥ .90 ×",
            bool(sharp.mean(axis=0).min() >= 0.9),
        ),
        Row("pixels changed outside the mask", f"{outside}", "0", outside == 0),
        Row("render, 512²", f"{square.render_fps:.0f} fps", "≥ 40 fps", square.render_fps >= 40),
        Row("render, 1080p", f"{portrait.render_fps:.0f} fps", "≥ 25 fps", portrait.render_fps >= 25),
        Row(
            "whole job, 512² / 1080p",
            f"{square.realtime_factor:.2f} / {portrait.realtime_factor:.2f} × real time",
            "",
            None,
        ),
        Row("memory, 1080p, 10 s (any length: benchmarks.memory)", f"{memory:.2f} GB most", "≤ .8 GB", memory <= 0.8),
    ]


def against_truth(figures: Figures, series: Sequence[float]) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return for each true piece of a job (what `series` has there, what the true mouth did), frames with both only."""
    pairs, start = [], 0
    for length in figures.lengths:
        part = slice(start, start + length)
        first = _floats(series[part])
        pairs.append(_both(first, figures.true[part][: len(first)]))
        start += length
    return pairs


def by_speaker(results: Sequence[tuple[Pair, Figures]], name: str) -> dict[str, float]:
    """Return r of a series of `Figures` against the true mouth, pooled over each speaker's clips."""
    clips: dict[str, list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = {}
    for pair, figures in results:
        clips.setdefault(pair.speaker, []).extend(against_truth(figures, getattr(figures, name)))
    return {speaker: metrics.pooled_pearson(pieces) for speaker, pieces in clips.items()}


def as_lines(rows: Sequence[Row]) -> list[str]:
    """Return the rows as a Markdown table."""
    cells = [("", "measured", "reach", "")]
    cells += [(row.what, row.measured, row.reach, _VERDICTS[row.passed]) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in cells]
    lines = ["| " + " | ".join(row) + " |" for row in padded]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def _details(results: Results, speed: Mapping[str, Figures], rows: Sequence[Row]) -> dict[str, object]:
    return {
        "table": [dataclasses.asdict(row) for row in rows],
        "speakers": {
            "plain": by_speaker(results["plain"], "shown"),
            "adapted": by_speaker(results["adapted"], "shown"),
            "borrowed": by_speaker(results["borrowed"], "shown"),
            "untouched": by_speaker(results["adapted"], "base"),
            "shuffled": by_speaker(results["shuffled"], "shown"),
        },
        "jobs": [
            {
                "pair": pair.name,
                "kind": kind,
                "r_true": metrics.pooled_pearson(against_truth(f, f.shown)),
                "lag_true": metrics.best_lag(*_both(f.shown, f.true)),
                "r_asked": metrics.pearson(*_both(f.asked, f.shown)),
                "lag_asked": metrics.best_lag(*_both(f.shown, f.asked)),
                **dataclasses.asdict(f),
            }
            for kind in KINDS
            for pair, f in results[kind]
        ],
        "speed": {size: dataclasses.asdict(figures) for size, figures in speed.items()},
    }


def _counts(results: Results) -> str:
    pairs = results["adapted"]
    frames = sum(figures.frames for _, figures in pairs)
    clips = {piece.path for pair, _ in pairs for piece in pair.truth}
    speakers = {pair.speaker for pair, _ in pairs}
    return f"{len(clips)} clips of {len(speakers)} speakers, {len(pairs)} pairs, {frames} frames"


def _spread(values: Sequence[float]) -> str:
    return f"r {np.mean(values):.2f} mean of {len(values)}, {np.min(values):.2f} to {np.max(values):.2f}"


def _movement(results: Sequence[Figures]) -> str:
    ratios = []
    for figures in results:
        shown, true = zip(*against_truth(figures, figures.shown), strict=True)
        ratios.append(np.mean([np.std(a) for a in shown]) / np.mean([np.std(b) for b in true]))
    return f"{np.mean(ratios):.2f} × mean, {np.min(ratios):.2f}–{np.max(ratios):.2f} ×"


def _ratios(values: NDArray[np.float64], worst: float, which: str) -> str:
    """Say ratios [n, 2] (written file, before the encoder)."""
    written, raw = values.mean(axis=0)
    return f"{written:.2f} × mean, {worst:.2f} × {which} ({raw:.2f} × before encoding)"


def _floats(series: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(series, np.float64)


def _both(
    first: Sequence[float] | NDArray[np.float64], second: Sequence[float] | NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the frames in which both series have a number."""
    a, b = _floats(first), _floats(second)
    n = min(len(a), len(b))
    seen = np.isfinite(a[:n]) & np.isfinite(b[:n])
    return a[:n][seen], b[:n][seen]


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
