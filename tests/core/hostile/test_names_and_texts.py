"""Names, settings and tags that mean harm, or are only odd: each works or is one sentence, and stays in its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import pytest
from typer.testing import CliRunner

from lipsync_core import api
from lipsync_core.cli import _complain
from lipsync_core.errors import InputError, LipsyncError, OutputError, SettingsError, WeightsError
from lipsync_core.models import known, store
from lipsync_core.models.folder import MODEL_FILE, read_config
from lipsync_core.registry import discover
from lipsync_core.settings import resolve
from tests.core.faults.conftest import fill
from tests.core.faults.jobs import dub, fake_backends

ODD = ("a b", "-x", "--help", "a'\"b", "a\nb", "é😀", "a%03d", "a:b", "http:x", "$(touch z);", "[a]*?", "|x", "a\\b",
       "\udcff", "concat:in.mp4|in.mp4", "a\x1b[31mb", "x" * 220)  # fmt: skip
TOO_LONG = "x" * 5000
DEEP = "[" * 100_000
LONG_NUMBER = "9" * 5000  # more digits than Python makes a number of
NOBODY = "~nobody-of-that-name/x"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A job two folders deep, where everything happens; nothing may come to be outside."""
    folder = tmp_path / "outer" / "job"
    folder.mkdir(parents=True)
    monkeypatch.setenv("LIPSYNC_CACHE", str(folder / "cache"))
    monkeypatch.chdir(folder)
    yield fill(folder, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["outer"]
    assert [path.name for path in folder.parent.iterdir()] == ["job"]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_of_inputs_and_outputs(place: Path, name: str) -> None:
    (place / "in.mp4").rename(place / f"{name}.mp4")
    (place / "say.wav").rename(place / f"{name}.wav")
    given = {path.name for path in place.iterdir()}
    with fake_backends():
        result = api.dub(f"{name}.mp4", f"{name}.wav", f"{name}.mkv", profile="fake.toml")
    assert result.dubbed == 6
    assert {path.name for path in place.iterdir()} == {*given, f"{name}.mkv", "cache"}


def test_names_no_file_can_have(place: Path) -> None:
    for video, sound in ((TOO_LONG, "say.wav"), ("in.mp4", TOO_LONG)):
        with fake_backends(), pytest.raises(InputError, match="File name too long") as caught:
            api.dub(video, sound, "out.mp4", profile="fake.toml")
        assert len(str(caught.value)) < 400
    for output in (f"{TOO_LONG}.mp4", f"{'x' * 245}.mp4"):  # the second leaves no room for a temporary name
        with pytest.raises(OutputError, match="File name too long"):
            dub(place, output)
    assert not (place / "cache").exists()


def test_a_message_holds_nothing_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    _complain("a\x1b]0;title\x07 \u202egpj.exe \udcff é")
    assert capsys.readouterr().err == "lipsync: a\\x1b]0;title\\x07 \\u202egpj.exe \\udcff é\n"


@pytest.mark.parametrize("text", [f"x = {DEEP}", f"[job]\ncrf = {LONG_NUMBER}", "\x00", "[job]\nmodel = 'a\x00'"])
def test_a_profile_without_end_is_one_sentence(place: Path, text: str) -> None:
    (place / "bad.toml").write_text(text)
    with pytest.raises(SettingsError, match=r"bad\.toml is not valid TOML"):
        resolve(discover(), profile="bad.toml", folder=place, environment={})


@pytest.mark.parametrize("value", [DEEP, LONG_NUMBER, "y" * 100_000])
def test_a_value_without_end_is_a_short_sentence(place: Path, value: str) -> None:
    for given in ({"overrides": [f"job.crf={value}"]}, {"environment": {"LIPSYNC_JOB__CRF": value}}):
        with pytest.raises(SettingsError, match="crf") as caught:
            resolve(discover(), **{"folder": place, "environment": {}, **given})  # type: ignore[arg-type]
        assert len(str(caught.value)) < 600


def test_a_profile_whose_paths_lead_outside_writes_nothing_there(place: Path) -> None:
    profile = place / "fake.toml"
    plain = profile.read_text()
    profile.write_text('name = "../../../x"\nsummary = "../y"\n' + plain + 'model = "../../../z"\n')
    assert dub(place).frames == 6
    with av.open(str(place / "out.mp4")) as written:
        assert not any("../x" in value for value in written.metadata.values())
    profile.write_text('extends = "../../x"\n' + plain)
    with pytest.raises(SettingsError, match="no profile named"):
        dub(place, "other.mp4")


def test_a_file_named_as_a_key_is_not_told(place: Path) -> None:
    secret = place / "secret"
    secret.write_text("user:password")
    with pytest.raises(LipsyncError) as caught:
        dub(place, flags={"job.c2pa_key": str(secret), "job.c2pa_certificate": str(secret)})
    assert "password" not in str(caught.value).replace("without a password", "")


@pytest.mark.parametrize("name", ["../../x", "..", "/etc", "x/../../y", "a\x00b", "", TOO_LONG, NOBODY])
def test_names_of_models_that_lead_elsewhere(place: Path, name: str) -> None:
    for use in (known.folder_of, known.pull, store.locate, lambda text: list(known.verify(text))):
        with pytest.raises(WeightsError, match="No model"):
            use(name)
    for use in (known.open_model, known.describe):
        with pytest.raises(WeightsError) as caught:
            use(name)
        assert len(str(caught.value)) < 500
    assert known.described_folders(name) == []


def test_the_command_says_it_of_a_model_too(place: Path) -> None:
    from lipsync_core.cli import app

    for words in (["models", "pull", "../../x"], ["models", "path", ".."], ["models", "convert", NOBODY]):
        done = CliRunner().invoke(app, words)
        assert isinstance(done.exception, WeightsError), words


@pytest.mark.parametrize("weights", ["../x.pt", "/etc/passwd", "a/../../x.pt", "..\\x.pt", ""])
def test_a_model_folder_has_its_weights_inside(place: Path, weights: str) -> None:
    description = json.loads(Path(known.__file__).with_name("tiny.json").read_text())
    description["unet"]["weights"] = weights
    (place / MODEL_FILE).write_text(json.dumps(description))
    with pytest.raises(WeightsError, match="unet.weights: .* not a plain relative path"):
        read_config(place / MODEL_FILE)


@pytest.mark.parametrize("text", [DEEP, f'{{"format": {LONG_NUMBER}}}', "\udcff", "{}", "null", "[1]"])
def test_a_model_description_that_is_none(place: Path, text: str) -> None:
    (place / MODEL_FILE).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(WeightsError, match=MODEL_FILE):
        read_config(place / MODEL_FILE)


def test_tags_of_a_megabyte_are_left_out(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    long = "long " * 200_000
    with av.open("in.mp4") as source, av.open("in.mkv", "w") as copy:
        copy.metadata.update({"title": long, "artist": "kept"})
        copy.set_chapters(
            [{"id": 1, "start": 0, "end": 100, "time_base": Fraction(1, 1000), "metadata": {"title": long}}]
        )
        stream = copy.add_stream_from_template(source.streams.video[0])
        stream.metadata["title"] = long
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    assert (place / "in.mkv").stat().st_size > 3_000_000
    with fake_backends():
        api.dub("in.mkv", "say.wav", "out.mkv", profile="fake.toml")
    assert (place / "out.mkv").stat().st_size < 100_000
    with av.open("out.mkv") as written:
        assert written.metadata["ARTIST"] == "kept"
        assert len(written.chapters()) == 1
    assert "longer tags than are kept; 'title' is left out" in caplog.text
