"""Make the weights of `mouth-shape-numpy` from measured pairs of log-mel and mouth shape.

Deterministic for a seed, a machine and a torch version. README.md beside this file gives the command and its results.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lipsync_audio.conv_net import CHANNELS, CONTEXT, LAYERS, NORM_EPS, OUTPUTS, STEP, ConvNet, load_net
from lipsync_audio.log_mel import BANDS, RANGE
from lipsync_audio.mouth_shape_numpy import band_statistics

log = logging.getLogger("train_mouth_shape")
Array = NDArray[np.float32]

REPOSITORY = Path(__file__).resolve().parents[3]
# Held back from the packaged weights: every number the project reports is measured on these speakers.
HELD_BACK = "grid_s30,grid_uC,grid_uD,ls_1"

STEPS = 250
ITEMS, FRAMES = 16, 64  # of a batch; long items, because each brings its own context
LEARNING_RATE, WEIGHT_DECAY, WARM_UP = 1.5e-3, 1e-2, 0.05
DROPOUT = 0.25
DIFFERENCE_LOSS = 0.5  # weight of the error of the two-frame difference
EMA_DECAY = 0.99
# Each clip's targets are brought this far (as an exponent) to the deviation of a typical clip: how much a speaker
# moves is not in the sound, and the large movers would rule the loss. The floor keeps still channels from growing.
EVEN_OUT, LEAST_DEVIATION = 0.7, 0.25

# Augmentation.
SPEED = 0.1  # up to 10 % faster or slower
BAND_SHIFT = 3  # bands: another length of vocal tract
ZEROED_BANDS = 12  # at most
GAIN, OFFSET, NOISE = 0.2, 0.2, 0.2  # in deviations of a band
SILENCED = 0.25  # share of items of which a stretch is made digital silence
SILENCE_FRAMES = (12, 2 * FRAMES)
SILENCE_EDGE = 4  # frames on either side of such an edge that do not count in the loss
REST_SHARE = 0.1  # the least open tenth of a clip's frames is its mouth at rest

_SLACK = FRAMES  # rows of silence around a clip beyond the net's context


@dataclass(frozen=True)
class Clip:
    """One clip: `rows` float32 [m, 80] normalised, in silence; frame f is centred on rows[first + 4 f].

    shape: float32 [n, 8], measured, relative to the clip's median. silence: float32 [80], what silence is in `rows`.
    """

    name: str
    speaker: str
    licence: str
    source: str
    rows: Array
    first: int
    shape: Array
    silence: Array
    mean: Array
    std: Array


def read_clips(folder: Path) -> list[Clip]:
    """Read `index.csv` and `mouth_shapes.npz`."""
    clips = []
    with (folder / "index.csv").open(newline="") as table, np.load(folder / "mouth_shapes.npz") as archive:
        for line in csv.DictReader(table):
            mel = archive[f"{line['clip']}.mel"].astype(np.float32)
            shape = archive[f"{line['clip']}.shape"]
            top = float(mel.max())
            mean, std = band_statistics(mel, top)
            silence = (np.float32(top - RANGE / 4.0) - mean) / std
            pad = CONTEXT + _SLACK
            after = pad + max(0, STEP * len(shape) - len(mel))
            rows = np.concatenate([np.tile(silence, (pad, 1)), (mel - mean) / std, np.tile(silence, (after, 1))])
            clips.append(
                Clip(
                    name=line["clip"],
                    speaker=line["speaker"],
                    licence=line["licence"],
                    source=line["source"],
                    rows=rows,
                    first=pad + STEP * int(line["lag_frames"]),
                    shape=shape - np.median(shape, axis=0),
                    silence=silence,
                    mean=mean - np.float32(top - RANGE / 4.0),
                    std=std,
                )
            )
    return clips


def by_speaker(clips: Sequence[Clip]) -> dict[str, list[Clip]]:
    """Return the clips of each speaker."""
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        groups.setdefault(clip.speaker, []).append(clip)
    return groups


def spread_of(clips: Sequence[Clip]) -> Array:
    """Return the unit of each output, float32 [8]: root mean square over the speakers, each speaker counted once."""
    squares = [np.mean(np.concatenate([c.shape for c in group]) ** 2, axis=0) for group in by_speaker(clips).values()]
    spread: Array = np.sqrt(np.mean(squares, axis=0)).astype(np.float32)
    return spread


class Batches:
    """Endless random batches: rows [ITEMS, 80, m], targets [ITEMS, 8, FRAMES], weights [ITEMS, 1, FRAMES]."""

    def __init__(self, clips: Sequence[Clip], spread: Array, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.clips = clips
        self.targets = [_evened(clip.shape / spread) for clip in clips]
        frames = {name: sum(len(c.shape) for c in group) for name, group in by_speaker(clips).items()}
        weight = np.array([len(c.shape) * frames[c.speaker] ** -0.5 for c in clips])
        self.odds = weight / weight.sum()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        while True:
            picks = self.rng.choice(len(self.clips), ITEMS, p=self.odds)
            rows, targets, weights = zip(*(self._item(pick) for pick in picks), strict=True)
            yield tuple(
                torch.from_numpy(np.ascontiguousarray(np.stack(x).transpose(0, 2, 1))) for x in (rows, targets, weights)
            )  # type: ignore[misc] # a tuple of as many as the generator gives, three

    def _item(self, pick: int) -> tuple[Array, Array, Array]:
        rng, clip, target = self.rng, self.clips[pick], self.targets[pick]
        speed = 1.0 + rng.uniform(-SPEED, SPEED)
        begin = rng.uniform(0.0, max(len(target) - 1 - speed * (FRAMES - 1), 0.0))
        values = interpolate(target, begin + speed * np.arange(FRAMES))
        along = np.arange(STEP * (FRAMES - 1) + 1 + 2 * CONTEXT) - CONTEXT
        rows = interpolate(clip.rows, clip.first + STEP * begin + speed * along)
        weight = np.ones((FRAMES, 1), np.float32)
        if rng.random() < SILENCED:
            length = int(rng.integers(*SILENCE_FRAMES))
            start = int(rng.integers(-length // 2, FRAMES - length // 4))
            frame, row = np.arange(FRAMES), along / STEP
            rows[(row >= start) & (row < start + length)] = clip.silence
            openings = target[:, 0]
            rest = target[openings <= np.quantile(openings, REST_SHARE)].mean(axis=0)
            values[(frame >= start) & (frame < start + length)] = rest
            for edge in (start, start + length):
                weight[np.abs(frame - edge) < SILENCE_EDGE] = 0.0
        bands = np.clip(np.arange(BANDS) + rng.integers(-BAND_SHIFT, BAND_SHIFT + 1), 0, BANDS - 1)
        rows = rows[:, bands] * np.float32(1.0 + rng.uniform(-GAIN, GAIN)) + np.float32(rng.normal(0.0, OFFSET))
        rows += rng.standard_normal(rows.shape, dtype=np.float32) * np.float32(rng.uniform(0.0, NOISE))
        width = int(rng.integers(0, ZEROED_BANDS + 1))
        low = int(rng.integers(0, BANDS - width + 1))
        rows[:, low : low + width] = 0.0
        return rows, values, weight


def _evened(target: Array) -> Array:
    deviation = np.maximum(target.std(axis=0), np.float32(LEAST_DEVIATION))
    result: Array = target * deviation**-EVEN_OUT
    return result


def interpolate(table: Array, position: NDArray[np.floating[Any]]) -> Array:
    """Return rows of `table` at fractional positions, the end rows repeated beyond the ends."""
    at = np.clip(position, 0.0, len(table) - 1.0)
    low = at.astype(np.int64)
    share = (at - low).astype(np.float32)[:, None]
    result: Array = table[low] * (1.0 - share) + table[np.minimum(low + 1, len(table) - 1)] * share
    return result


class Net(nn.Module):
    """The net of `lipsync_audio.conv_net` in torch."""

    def __init__(self) -> None:
        super().__init__()
        widths = [BANDS] + [CHANNELS] * len(LAYERS)
        self.conv = nn.ModuleList(
            nn.Conv1d(width, CHANNELS, layer.kernel, layer.stride, dilation=layer.dilation)
            for width, layer in zip(widths, LAYERS, strict=False)
        )
        self.norm = nn.ModuleList(nn.LayerNorm(CHANNELS, eps=NORM_EPS) for _ in LAYERS)
        self.head = nn.Conv1d(CHANNELS, OUTPUTS, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map rows [b, 80, m] to shapes [b, 8, n]."""
        for conv, norm in zip(self.conv, self.norm, strict=True):
            x = norm(conv(x.contiguous()).transpose(1, 2)).transpose(1, 2)
            x = functional.dropout(functional.gelu(x, approximate="tanh"), DROPOUT, self.training)
        shape: Tensor = self.head(x)
        return shape


def loss_of(output: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the squared error plus that of the two-frame difference, over the frames that count."""
    error = output - target
    both = weight[:, :, 2:] * weight[:, :, :-2]
    difference = error[:, :, 2:] - error[:, :, :-2]
    return (error.square() * weight).sum() / (weight.sum() * OUTPUTS) + DIFFERENCE_LOSS * (
        difference.square() * both
    ).sum() / (both.sum() * OUTPUTS)


def train(clips: Sequence[Clip], spread: Array, *, steps: int, seed: int) -> dict[str, Array]:
    """Return the averaged weights after `steps` steps, under the names of `lipsync_audio.conv_net`."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    net = Net()
    average = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA_DECAY)
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=WARM_UP)
    for step, (rows, target, weight) in zip(range(1, steps + 1), Batches(clips, spread, seed), strict=False):
        loss = loss_of(net(rows), target, weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        average.update_parameters(net)
        if step % 50 == 0:
            log.info("step %d of %d: loss %.3f", step, steps, loss.item())
    arrays = {}
    for name, value in average.module.state_dict().items():
        part, *rest = name.split(".")
        flat = f"{part}.{rest[0]}" if part == "head" else f"{part}{rest[0]}.{rest[1]}"
        arrays[flat] = value.numpy().astype(np.float16)
    arrays["head.weight"] = arrays["head.weight"][:, :, 0]
    return arrays


def correlations(net: ConvNet, clips: Sequence[Clip]) -> dict[str, list[float]]:
    """Return for each clip the correlation of each output with the measured shape."""
    result = {}
    for clip in clips:
        count = len(clip.shape)
        start = clip.first - CONTEXT
        rows = clip.rows[start : start + STEP * (count - 1) + 1 + 2 * CONTEXT]
        shape = net.shape(net.hidden(rows))
        result[clip.name] = [round(float(np.corrcoef(shape[:, k], clip.shape[:, k])[0, 1]), 3) for k in range(OUTPUTS)]
    return result


def main() -> None:
    """Train, write the file, and report on the speakers left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data" / "mouth_shapes")
    parser.add_argument("--leave-out", default=HELD_BACK, help="speakers, separated by commas")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)

    clips = read_clips(options.data)
    left_out = [name for name in options.leave_out.split(",") if name]
    if unknown := set(left_out) - {clip.speaker for clip in clips}:
        parser.error(f"no such speaker: {', '.join(sorted(unknown))}")
    used = [clip for clip in clips if clip.speaker not in left_out]
    unseen = [clip for clip in clips if clip.speaker in left_out]
    spread = spread_of(used)
    arrays = train(used, spread, steps=options.steps, seed=options.seed)
    arrays["spread"] = spread
    arrays["typical_mean"] = np.mean([clip.mean for clip in used], axis=0, dtype=np.float32)
    arrays["typical_std"] = np.mean([clip.std for clip in used], axis=0, dtype=np.float32)
    metadata: dict[str, Any] = {
        "seed": options.seed,
        "steps": options.steps,
        "torch": torch.__version__,
        "speakers": sorted({clip.speaker for clip in used}),
        "left_out": left_out,
        "clips": {clip.name: {"licence": clip.licence, "source": clip.source} for clip in used},
    }
    write(options.out, arrays, metadata)
    if unseen:
        metadata["held_out_r"] = correlations(load_net(options.out), unseen)
        write(options.out, arrays, metadata)
        for name, values in metadata["held_out_r"].items():
            log.info("%s  inner opening r = %.2f  all eight: %s", name, values[0], values)
        log.info("mean inner opening r = %.3f", np.mean([r[0] for r in metadata["held_out_r"].values()]))


def write(file: Path, arrays: dict[str, Array], metadata: dict[str, Any]) -> None:
    """Write the weight file."""
    np.savez_compressed(file, allow_pickle=False, metadata=np.array(json.dumps(metadata)), **arrays)


if __name__ == "__main__":
    main()
