"""The denoiser `exemplar-opencv`: the mouth's pixels come from the source video, its shape from the new sound.

Unit selection as in Bregler, Covell and Slaney, "Video Rewrite" (1997), and Suwajanakorn, Seitz and
Kemelmacher-Shlizerman, "Synthesizing Obama" (2017). `prepare` measures every mouth of the source (`head`,
`mouth_shape`), asks the sound for shapes (`speaker`, `own_voice`), chooses a mouth for each output frame (`bank`,
`choose`) and says where its landmarks are to be (`plan`). `generate` only looks that up and draws (`render`, `warp`,
`cavity`), so any cutting of the job into chunks gives the same frames.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from lipsync_core.errors import BackendError
from lipsync_core.stages import SourceClip
from lipsync_core.types import AlignedFaces, AudioFeatures, GeneratedFaces, MouthMask
from lipsync_denoiser import mouth_shape as ms
from lipsync_denoiser.plan import NO_PLAN, OWN_MOUTH, Bank, Plan, plan_run, plan_still, to_crop
from lipsync_denoiser.render import render
from lipsync_denoiser.speaker import (
    FEWEST_MOUTHS,
    adapt,
    frames_to_adapt,
    gather,
    habits,
    listen,
    measure_heads,
    silence,
    wanted_of_still,
    wanted_shapes,
)
from lipsync_denoiser.targets import Targets

_WORKERS: Final = 2  # OpenCV and NumPy let go of the interpreter lock; more than two gain nothing on two cores


class ExemplarOptions(BaseModel):
    """Options of `exemplar-opencv`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    own_voice: bool = Field(
        default=True,
        description="adapt the audio model to the speaker from the source's own sound, where that demonstrably helps",
    )


class ExemplarOpencv:
    """Speaks with mouths of the source video."""

    feature_shape = (1, 137)
    crop_size: int | None = None
    max_frames = 2  # three chunks are under way; four frames each took 10 % more memory and were 3 % faster
    latent_shape: tuple[int, ...] | None = None

    def __init__(self, options: ExemplarOptions) -> None:
        self._options = options
        self._plan: Plan | None = None

    def prepare(self, source: SourceClip) -> None:
        """Measure the source once and plan the whole job; replaces what an earlier call left.

        Raises `BackendError` where the aligner's landmarks do not do.
        """
        self.close()
        job = source.source_frames
        heads = measure_heads(source.tracks())
        voice, offset = None, np.zeros(ms.COUNT)
        own = source.audio() if heads else None
        if own is not None:
            own_predicted, own_hidden = gather(own, frames_to_adapt(heads))
            voice, offset = adapt(heads, own_predicted, own_hidden, self._options.own_voice)
        predicted, loudness = listen(source.target_audio(), voice)
        predicted -= offset
        quiet = silence(loudness, source.output_fps)
        bank = Bank([scene for scene in heads if scene.moves], np.unique(job))
        for faces in source.faces(bank.wanted):
            bank.add(faces)
        plan = Plan(
            np.full(len(job), NO_PLAN, np.int64),
            Targets(len(job)),
            bank.points,
            bank.patches,
            bank.file,
        )
        for scene in heads:
            _, inside = scene.rows(job)
            outputs = np.flatnonzero(inside)
            if not len(outputs):
                continue
            asked, hush = predicted[outputs], quiet[outputs]
            if len(bank.mouths_of(scene)) >= FEWEST_MOUTHS:
                speaker = habits(scene.shapes, scene.smile)
                plan_run(outputs, job[outputs], wanted_shapes(asked, hush, speaker), scene, speaker, bank, plan)
            else:
                base, _ = scene.rows(job[outputs])
                plan_still(outputs, job[outputs], wanted_of_still(asked, hush, scene.shapes[base]), scene, plan)
        self._plan = plan

    @property
    def plan(self) -> Plan | None:
        """What `prepare` decided for every output frame; None before. The evaluation compares it with the output."""
        return self._plan

    def generate(
        self,
        faces: AlignedFaces,
        mask: MouthMask,
        audio: AudioFeatures,
        noise: NDArray[np.float32] | None,
    ) -> GeneratedFaces:
        """Draw n frames from the plan; `audio` and `noise` are not needed any more.

        Raises `BackendError` before `prepare`.
        """
        plan = self._plan
        if plan is None:
            raise BackendError(
                "The exemplar generator was asked for a frame before it saw the source.",
                "Call prepare with the source first.",
            )
        out = np.empty(faces.pixels.shape, np.float32)

        def draw(row: int) -> None:
            np.multiply(faces.pixels[row], np.float32(1 / 255), out=out[row])
            frame = faces.track.start + row
            mouth = int(plan.mouth[frame])
            if mouth == NO_PLAN:
                return
            patch = None
            if mouth != OWN_MOUTH:
                kept = plan.patches[mouth]
                patch = plan.file.read(kept), plan.points[mouth].astype(np.float64) - kept.rect[:2]
            matrix = faces.track.frame_to_crop[row]
            render(
                faces.pixels[row],
                mask.generate[row],
                to_crop(faces.track.landmarks[row], matrix),
                to_crop(plan.targets.read(frame)[0], matrix),
                patch,
                out[row],
            )

        with ThreadPoolExecutor(_WORKERS) as pool:
            list(pool.map(draw, range(len(out))))
        return GeneratedFaces(out)

    def close(self) -> None:
        """Give the temporary file back."""
        if self._plan is not None:
            self._plan.file.close()
            self._plan.targets.close()
            self._plan = None
