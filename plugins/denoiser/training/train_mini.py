"""Train `mini`: prepare, autoencoder, unet, mix, decoder, evaluate, export. README.md beside this has the commands."""

from __future__ import annotations

import os

# Before torch starts its threads. Waiting threads sleep instead of spinning; one thread an operator, because oneDNN's
# weight gradients spin at a barrier and cost several times as much as soon as another job has the other core.
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import logging
from pathlib import Path

import cv2
import torch
from mini_training import footage
from mini_training.autoencoder import train_autoencoder
from mini_training.decoder import train_decoder
from mini_training.evaluate import cases, evaluate, other_voice
from mini_training.export import export
from mini_training.generate import Generator
from mini_training.loop import Plan, mix
from mini_training.unet import train_unet

log = logging.getLogger("train_mini")
REPOSITORY = Path(__file__).resolve().parents[3]


def main() -> None:
    """Run one step of the training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for everything made on the way")
    commands = parser.add_subparsers(dest="command", required=True)

    prepare = commands.add_parser("prepare", help="cut the faces out of the clips, once")
    prepare.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    for name, steps, rate, decay in (
        ("autoencoder", 1500, 1e-3, 1200),
        ("unet", 3400, 2e-3, 1000),
        ("decoder", 640, 5e-4, 500),
    ):
        train = commands.add_parser(name, help=f"train the {name}, from its checkpoint where there is one")
        train.add_argument("--steps", type=int, default=steps, help="the step it ends at")
        train.add_argument("--decay", type=int, default=decay, help="the last steps, over which the rate falls to 0")
        train.add_argument("--rate", type=float, default=rate, help="learning rate")
        train.add_argument("--seed", type=int, default=0)
        train.add_argument("--run", default=name, help="folder of the run, in --work")
        train.add_argument("--workers", type=int, default=2, help="threads, each with its own part of a batch")
        train.add_argument("--check", type=int, default=100, help="steps between measurements on unseen speakers")
        train.add_argument("--average", type=float, default=0.998, help="decay of the averaged weights, those used")
        train.add_argument("--pause-file", type=Path, help="training waits while this file exists")
        if name == "unet":
            train.add_argument("--items", type=int, default=8, help="clips in a worker's batch")
            train.add_argument("--frames", type=int, default=1, help="frames of each")
    mean = commands.add_parser(
        "mix", help="mean of the weights of two runs: of the first, and of what was trained from it"
    )
    mean.add_argument("--of", nargs=2, required=True, metavar="RUN", help="folders of the runs, in --work")
    mean.add_argument("--share", type=float, default=0.7, help="of the second")
    mean.add_argument("--run", default="mixed", help="folder for the mean, in --work")
    measure = commands.add_parser("evaluate", help="numbers and contact sheets on the speakers held out")
    measure.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    measure.add_argument("--frames", type=int, default=250, help="of each clip, at most")
    measure.add_argument("--out", type=Path, required=True, help="folder for what it writes")
    folder = commands.add_parser("export", help="write the model folder")
    folder.add_argument("--out", type=Path, required=True, help="the folder")
    for command in (measure, folder):
        command.add_argument("--autoencoder", default="autoencoder", help="folder of that run, in --work")
        command.add_argument("--unet", default="unet", help="folder of that run, in --work")
    options = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    prepared = options.work / "prepared"
    if options.command == "prepare":
        footage.prepare(options.data, prepared)
        return
    if options.command == "mix":
        first, second = (options.work / run for run in options.of)
        mix([(first, 1 - options.share), (second, options.share)], options.work / options.run)
        return
    if options.command in ("evaluate", "export"):
        runs = options.work / options.autoencoder, options.work / options.unet
        if options.command == "export":
            log.info("%d bytes", export(*runs, options.out))
        else:
            clips = cases(options.data, prepared, options.frames)
            evaluate(Generator(*runs), clips, other_voice(options.data), options.out)
        return
    clips, unseen = footage.load(prepared, held_out=False), footage.load(prepared, held_out=True)
    plan = Plan(
        steps=options.steps,
        rate=options.rate,
        decay=options.decay,
        muon=options.command != "decoder",
        average=options.average,
        workers=options.workers,
        check=options.check,
        pause_file=options.pause_file,
    )
    if options.command == "autoencoder":
        train_autoencoder(clips, unseen, options.work / options.run, plan, options.seed)
    elif options.command == "decoder":
        runs = (options.work / "autoencoder", options.work / options.run)
        train_decoder(clips, unseen, runs, plan, options.seed)
    else:
        runs = (options.work / "autoencoder", options.work / options.run)
        train_unet(clips, unseen, runs, plan, options.seed, (options.items, options.frames))


if __name__ == "__main__":
    main()
