"""A package that is not ours, in an environment of its own that was made from wheels: found, checked, run, mended.

What the two wheels depend on is not installed a second time: the environment looks into the one these tests run in.
No network is used.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from lipsync_core.errors import WeightsError
from lipsync_core.models import store
from lipsync_core.testing import samples

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = Path(__file__).resolve().parent / "lipsync-lipstick"
FRAMES = 250  # more than one segment of 240, so that there is something to resume from


class Environment:
    """A virtual environment with the two wheels in it."""

    def __init__(self, folder: Path) -> None:
        builder = venv.EnvBuilder(with_pip=False, symlinks=os.name != "nt")
        builder.create(folder)
        self.folder = folder
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        self.python = self.bin / "python"
        # Plain lines: neither an editable install nor any other .pth of that folder comes along.
        (self.packages / "dependencies.pth").write_text(
            "".join(f"{path}\n" for path in sys.path if path.endswith(("site-packages", "dist-packages")))
        )

    @property
    def packages(self) -> Path:
        variables = {"base": str(self.folder), "platbase": str(self.folder)}
        return Path(sysconfig.get_path("purelib", "venv", variables))

    def install(self, *wheels: Path) -> None:
        pip = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet"]
        quiet = ["--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check", "--force-reinstall"]
        subprocess.run([*pip, *quiet, *wheels], check=True)

    def run(self, *words: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment in `folder`, as its user would."""
        own = {"PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
        env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")} | own
        command = [str(self.bin / words[0]), *map(str, words[1:])]
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def build(project: Path, folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=project, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    for module in ("hatchling", "pip", "kaldi_native_fbank"):
        pytest.importorskip(module, reason=f"the package of a stranger needs {module} (extra dev)")
    made = tmp_path_factory.mktemp("wheels")
    return build(ROOT, made / "core"), build(PLUGIN, made / "plugin")


@pytest.fixture(scope="module")
def fresh(wheels: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("venv"))
    environment.install(*wheels)
    return environment


def told(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{done.args}: {done.stdout}\n{done.stderr}"
    return done.stdout


def dub(environment: Environment, folder: Path, output: str) -> subprocess.CompletedProcess[str]:
    job = ["lipsync", "run", "video.mp4", "speech.wav", "-o", output, "--profile", "lipstick", "--json"]
    return environment.run(*job, folder=folder)


def pictures(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with video.mp4, a second of the drawn face, and speech.wav, which lasts FRAMES."""
    try:
        store.locate("face-landmarker", download=False)
    except WeightsError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("clip")
    with av.open(str(folder / "video.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=samples.FPS)
        stream.height, stream.width, stream.pix_fmt = samples.HEIGHT, samples.WIDTH, "yuv420p"
        for picture in samples.frames(0, 25).pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    with wave.open(str(folder / "speech.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((samples.speech(FRAMES / 25, 16000) * 32767).astype("<i2").tobytes())
    return folder


@pytest.fixture(scope="module")
def whole(fresh: Environment, clip: Path) -> dict[str, Any]:
    """What the job says that wrote whole.mp4."""
    result: dict[str, Any] = json.loads(told(dub(fresh, clip, "whole.mp4")))
    return result


def test_it_is_found(fresh: Environment, tmp_path: Path) -> None:
    where = told(fresh.run("python", "-c", "import lipsync_core; print(lipsync_core.__file__)", folder=tmp_path))
    assert Path(where.strip()).is_relative_to(fresh.folder)
    listed = told(fresh.run("lipsync", "backends", folder=tmp_path))
    assert re.search(r"audio +mfcc-kaldi +ready .*\[lipsync-lipstick 0\.3\.0\]", listed)
    assert re.search(r"denoiser +lipstick +ready .*\[lipsync-lipstick 0\.3\.0\]", listed)
    assert "broken" not in listed
    assert "conflict" not in listed
    profiles = told(fresh.run("lipsync", "profile", "list", folder=tmp_path))
    assert re.search(r"lipstick .*\(lipsync-lipstick 0\.3\.0\)", profiles)


def test_it_conforms(fresh: Environment, tmp_path: Path) -> None:
    checked = told(fresh.run("lipsync", "backends", "check", "lipstick", "--option", "colour=#0000ff", folder=tmp_path))
    assert "FAILED" not in checked
    assert checked.count("ok") >= 10


def test_its_own_tests_pass(fresh: Environment, tmp_path: Path) -> None:
    tests = ["-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", tmp_path, PLUGIN / "tests"]
    done = told(fresh.run("python", "-m", "pytest", *tests, folder=tmp_path))
    assert int(re.findall(r"(\d+) passed", done)[-1]) >= 20


@pytest.mark.facemodel
def test_it_runs_and_paints_the_lips_alone(whole: dict[str, Any], clip: Path) -> None:
    assert (whole["frames"], whole["dubbed"], whole["profile"]) == (FRAMES, FRAMES, "lipstick")
    before, after = pictures(clip / "video.mp4"), pictures(clip / "whole.mp4")[:25]
    changed = np.stack(after).astype(int) - np.stack(before)
    lips = np.s_[:, 195:225, 125:165]  # of the drawn face, px
    assert (changed[lips][..., 0] - changed[lips][..., 1]).mean() > 8  # redder
    assert np.abs(changed[:, :100]).mean() < 3  # the encoder's loss


@pytest.mark.facemodel
def test_it_is_benchmarked_as_ours_are(fresh: Environment, clip: Path, tmp_path: Path) -> None:
    job = ["--video", clip / "video.mp4", "--audio", clip / "speech.wav", "--set", "job.length=video"]
    stage = ["--stage", "denoiser", "--backends", "lipstick", "--profile", "lipstick"]
    told(fresh.run("lipsync", "bench", *stage, *job, "--repeats", "1", "--out", tmp_path / "bench", folder=tmp_path))
    results = json.loads((tmp_path / "bench" / "results.json").read_text(encoding="utf-8"))
    assert results["versions"]["lipsync-lipstick"] == "0.3.0"
    assert "lipstick" in (tmp_path / "bench" / "report.md").read_text(encoding="utf-8")


@pytest.mark.facemodel
def test_a_fault_in_the_middle_is_named_and_the_job_goes_on_after_the_repair(
    fresh: Environment, wheels: tuple[Path, Path], whole: dict[str, Any], clip: Path
) -> None:
    module = fresh.packages / "lipsync_lipstick" / "lipstick.py"
    text = module.read_text(encoding="utf-8")
    broken = (
        "        if faces.track.start >= 240:\n            raise ZeroDivisionError('planted')\n        lips = _in_crop("
    )
    module.write_text(text.replace("        lips = _in_crop(", broken), encoding="utf-8")
    failed = dub(fresh, clip, "mended.mp4")
    assert failed.returncode == 2
    assert not (clip / "mended.mp4").exists()
    assert "The denoiser backend lipstick (lipsync-lipstick 0.3.0) failed at frames 240–249" in failed.stderr
    assert "ZeroDivisionError: planted" in failed.stderr
    assert "Traceback" not in failed.stderr
    fresh.install(wheels[1])  # the author's new version
    assert module.read_text(encoding="utf-8") == text
    mended = json.loads(told(dub(fresh, clip, "mended.mp4")))
    assert (mended["frames"], mended["resumed_frames"]) == (whole["frames"], 240)
    np.testing.assert_array_equal(pictures(clip / "mended.mp4"), pictures(clip / "whole.mp4"))
