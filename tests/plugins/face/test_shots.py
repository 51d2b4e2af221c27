"""One person followed through made-up shots of real faces: never somebody else, never a mouth that is not there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lipsync_core import landmarks as lm
from lipsync_core.api import Treatment, dub
from lipsync_core.errors import WeightsError
from lipsync_core.models import store
from lipsync_face.blazeface import BlazeFace
from lipsync_face.facemesh_opencv import DETECTOR_MEMBER, MESH_MEMBER, WEIGHT
from lipsync_face.mesh import FACE_POINTS, INPUT_SIDE, MESH_TO_IBUG, FaceMesh, roi_of_detection
from lipsync_face.search import Choice
from lipsync_face.tracking import FaceTracker
from tests.core.media.conftest import Clips

from .crowd import HEIGHT, WIDTH, Mask, Person, Place, Script, during, shot, still, there_and_back, walk

pytestmark = pytest.mark.facemodel

FPS = 25
NEAR = 0.05  # of the face's height: how far the lips may be from where they are
FILES = {"anna": "grid_rz_sbwe5n.mpg", "ben": "grid_rz_bbaf2n.mpg", "cora": "grid_rz_lrwp9a.mpg"}


@dataclass(frozen=True, slots=True)
class Follower:
    """The models, loaded once."""

    detector: BlazeFace
    mesh: FaceMesh

    def follow(self, frames: NDArray[np.uint8], choice: Choice = "largest") -> NDArray[np.float64]:
        """Return the points [n, 68, 2] of one shot; NaN where the face was not found."""
        tracker = FaceTracker(self.detector, self.mesh, choice, FPS)
        found = [tracker.step(frame) for frame in frames]
        return np.stack([np.full((lm.COUNT, 2), np.nan) if p is None else p[list(MESH_TO_IBUG)] for p in found])

    def mask(self, person: Person) -> Mask:
        """Return the first frame's face as a surface."""
        frame = person.frames[0]
        (face,) = self.detector.detect(frame, 0, 0, max(frame.shape))
        to_frame = roi_of_detection(face).to_frame()
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        square = np.asarray(cv2.warpAffine(frame, to_frame, (INPUT_SIDE, INPUT_SIDE), flags=how), np.uint8)
        points, _ = self.mesh._net.run(cv2.dnn.blobFromImage(square, 1 / 255))
        return Mask(square, points.reshape(-1, 3)[:FACE_POINTS].astype(np.float64))


@pytest.fixture(scope="module")
def follower() -> Follower:
    try:
        task = store.locate(WEIGHT, download=False)
    except WeightsError as error:
        pytest.skip(str(error))
    return Follower(BlazeFace(store.unpack(task, DETECTOR_MEMBER), 0.5), FaceMesh(store.unpack(task, MESH_MEMBER)))


@pytest.fixture(scope="module")
def people(shared_data: Path, follower: Follower) -> dict[str, Person]:
    made = {}
    for name, file in FILES.items():
        with av.open(str(shared_data / file)) as container:
            pictures = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
            frames = np.stack([picture for picture, _ in zip(pictures, range(25), strict=False)])
        points = follower.follow(frames)
        assert np.isfinite(points).all()
        made[name] = Person(frames, points)
    return made


def hold(points: NDArray[np.float64], person: Person, script: Script) -> set[int]:
    """Return in which frames the face was found; fail where it was somebody else's, or the lips were elsewhere."""
    found = np.flatnonzero(np.isfinite(points).all(axis=(1, 2))).tolist()
    for k in found:
        place = script(k)
        assert place is not None, f"frame {k}: found, but not there"
        off = np.linalg.norm(points[k] - person.points_at(k, place), axis=1)[lm.LIPS].mean() / place.height
        assert off < NEAR, f"frame {k}: the lips are {off:.2f} of a face's height from where they are"
    return set(found)


@dataclass(frozen=True, slots=True)
class Case:
    """A shot of n frames; the cast from back to front. Anna is wanted, and must be found in the frames of `must`."""

    name: str
    n: int
    choice: Choice
    cast: tuple[tuple[str, Script], ...]
    must: str
    slow: bool = False


_ANNA_PASSES, _BEN_PASSES = walk(120, 520, 40), walk(520, 120, 40)
CASES = [
    Case("two, the larger", 6, "largest", (("anna", still(180)), ("ben", still(460, 90))), "0-5"),
    Case("two, the left one", 6, "left", (("anna", still(180, 90)), ("ben", still(460))), "0-5"),
    Case("two, the right one", 6, "right", (("anna", still(460, 90)), ("ben", still(180))), "0-5"),
    Case("two, number 1", 6, 1, (("anna", still(460, 90)), ("ben", still(180))), "0-5"),
    Case("two, number 2", 6, 2, (("ben", still(460, 90)), ("cora", still(180))), ""),
    Case("nobody", 6, "largest", (), ""),
    Case("cheek to cheek", 30, "left", (("ben", still(380)), ("anna", still(275))), "0-29", slow=True),
    Case("away for a while", 50, "largest", (("anna", during(still(), (10, 20), (35, 50))),), "10-19 35-49"),
    Case("leaves the frame and returns", 50, "largest", (("anna", there_and_back(320, -100, 50)),), "0-16 32-49"),
    Case("leaves, the other stays", 50, "largest", (("ben", still(450, 90)), ("anna", walk(200, -160, 25))), "0-10"),
    Case(
        "leaves, the other takes the place",
        60,
        "left",
        (("anna", walk(300, -160, 30)), ("ben", walk(800, 300, 50))),
        "0-16",
        slow=True,
    ),
    Case("crossing, in front", 40, "left", (("ben", _BEN_PASSES), ("anna", _ANNA_PASSES)), "0-39"),
    Case("crossing, behind", 40, "left", (("anna", _ANNA_PASSES), ("ben", _BEN_PASSES)), "0-13 35-39"),
    Case(
        "crossing at a run",
        30,
        "left",
        (("anna", walk(120, 520, 12)), ("ben", walk(520, 120, 12))),
        "0-3 25-29",
        slow=True,
    ),
    Case("one passes before", 50, "centre", (("anna", still()), ("ben", walk(60, 580, 40))), "0-10 40-49"),
    Case(
        "one passes before, larger",
        50,
        1,
        (("anna", still(height=90)), ("ben", walk(60, 580, 40, height=140))),
        "0-10 45-49",
        slow=True,
    ),
    Case("one stops before the face", 40, "centre", (("anna", still()), ("ben", walk(60, 320, 25))), "0-12", slow=True),
    Case(
        "meeting and turning back",
        50,
        "left",
        (("anna", there_and_back(120, 320, 50)), ("ben", there_and_back(520, 320, 50))),
        "0-16 45-49",
        slow=True,
    ),
    Case("a photo in the background", 8, "largest", (("photo", still(500, 50, 80)), ("anna", still(250))), "0-7"),
    Case(
        "leaves, a photo stays",
        50,
        "largest",
        (("photo", still(500, 70, 80)), ("anna", during(still(250), (0, 10), (40, 50)))),
        "0-9 40-49",
        slow=True,
    ),
    Case(
        "walks past a photo", 40, "left", (("photo", still(320, 70, 150)), ("anna", walk(120, 520, 40))), "0-12 30-39"
    ),
    Case("24 px from brow to chin", 6, "largest", (("anna", still(250, 24)),), "0-5"),
    Case("larger than the frame", 6, "largest", (("anna", still(height=430, y=180)),), "0-5"),
    Case("comes closer", 30, "largest", (("anna", lambda k: Place(height=110 + 12 * k)),), "0-29", slow=True),
    Case("half out at the side", 30, "largest", (("anna", walk(100, -60, 30)),), "0-17"),
    Case("sinks out of the frame", 30, "largest", (("anna", lambda k: Place(y=250 + 6 * k)),), "0-10"),
    Case("upside down", 6, "largest", (("anna", still(angle=180)),), "0-5"),
    Case("askew", 6, "largest", (("anna", still(angle=135)),), "0-5"),
    Case("turns over", 40, "largest", (("anna", lambda k: Place(angle=4.5 * k)),), "0-39", slow=True),
]


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name, marks=pytest.mark.slow if c.slow else ()) for c in CASES])
def test_shot(case: Case, people: dict[str, Person], follower: Follower) -> None:
    photo = people["cora"]
    cast = [(people.get(name, photo), script) for name, script in case.cast]
    frames = shot(case.n, cast, photo=photo)
    wanted = dict(case.cast).get("anna", lambda k: None)
    found = hold(follower.follow(frames, case.choice), people["anna"], wanted)
    ranges = [tuple(map(int, part.split("-"))) for part in case.must.split()]
    missing = {k for first, last in ranges for k in range(first, last + 1)} - found
    assert not missing, f"not found in {sorted(missing)}"


def test_a_mouth_below_the_frame_is_not_guessed(people: dict[str, Person], follower: Follower) -> None:
    """The mesh follows to where only the eyes are left."""
    frames = shot(30, [(people["anna"], lambda k: Place(y=250 + 6 * k))])
    points = follower.follow(frames)
    found = np.isfinite(points).all(axis=(1, 2))
    middle = np.array([people["anna"].points_at(k, Place(y=250 + 6 * k))[lm.LIPS].mean(axis=0)[1] for k in range(30)])
    assert found[middle < HEIGHT - 5].all()
    assert not found[middle > HEIGHT + 5].any()


def test_turning_to_the_side_and_back(people: dict[str, Person], follower: Follower) -> None:
    """A surface cut out of one frame is no whole head: at the profile she may be lost, but not be elsewhere."""
    mask = follower.mask(people["anna"])
    turns = [*range(0, 90, 6), *range(90, 0, -6), 0, 0]
    made = [mask.turned(turn, 140) for turn in turns]
    points = follower.follow(np.stack([frame for frame, _ in made]))
    true = np.stack([points for _, points in made])[:, list(MESH_TO_IBUG)]
    off = np.linalg.norm(points - true, axis=2)[:, lm.LIPS].mean(axis=1) / 110
    assert off[[abs(turn) <= 48 for turn in turns]].max() < NEAR
    assert np.nanmax(off) < 4 * NEAR


def drawn(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a pencil drawing: each pixel's grey against its surroundings."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    light = cv2.divide(grey, cv2.GaussianBlur(grey, (0, 0), 6), scale=255)
    return np.asarray(cv2.cvtColor(light, cv2.COLOR_GRAY2RGB), np.uint8)


@pytest.mark.parametrize("draw", [drawn, cv2.stylization], ids=["pencil", "painted"])
def test_a_drawing_that_is_found_is_found_where_it_is(
    people: dict[str, Person], follower: Follower, draw: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
) -> None:
    frames = np.stack([draw(frame) for frame in shot(4, [(people["anna"], still())])])
    assert hold(follower.follow(frames), people["anna"], still()) == {0, 1, 2, 3}


def test_outlines_are_no_face(people: dict[str, Person], follower: Follower) -> None:
    frames = np.stack(
        [cv2.Canny(frame, 60, 120)[..., None].repeat(3, 2) for frame in shot(4, [(people["anna"], still())])]
    )
    assert hold(follower.follow(frames), people["anna"], still()) == set()


SHOTS = [("anna",), (), ("ben",), ("cora", "anna"), ("ben",)]  # a second each; of two the left one is wanted


def test_a_job_over_cuts_every_second_says_what_became_of_each(people: dict[str, Person], tmp_path: Path) -> None:
    clips = Clips(tmp_path)
    frames = np.concatenate(
        [
            shot(FPS, [(people[name], still(220 + 200 * i, 110 - 20 * i)) for i, name in enumerate(cast)])
            for cast in SHOTS
        ]
    )
    video = clips.video("in.mp4", n=len(frames), size=(WIDTH, HEIGHT), pictures=list(frames))
    sound = clips.sound("tone.wav", clips.tone(5, 16000, 1), "pcm_s16le", 16000)
    result = dub(video, sound, tmp_path / "out.mp4", profile="draft", flags={"aligner.options.face": "left"})
    assert [(r.start, r.stop, r.treatment) for r in result.ranges] == [
        (0, FPS, Treatment.DUBBED),
        (FPS, 2 * FPS, Treatment.NO_FACE),
        (2 * FPS, 5 * FPS, Treatment.DUBBED),
    ]
