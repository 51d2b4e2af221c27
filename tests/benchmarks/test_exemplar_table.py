"""The table's arithmetic, on planted figures, and the clips the jobs are made of."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks import clips, exemplar_table, pairs
from benchmarks.clips import FPS, RATE, Piece
from benchmarks.exemplar_table import against_truth, as_lines, by_speaker, table
from benchmarks.job import Figures
from benchmarks.pairs import Pair

RNG = np.random.default_rng(8)


def figures(shown: list[float], true: list[float], lengths: list[int], **more: object) -> Figures:
    base = RNG.normal(size=len(shown)).tolist()
    plain = Figures(
        seconds=1.0,
        realtime_factor=1.0,
        peak_rss_bytes=500_000_000,
        width=360,
        height=288,
        frames=len(shown),
        render_fps=50.0,
        asked=shown,
        shown=shown,
        base=base,
        true=true,
        lengths=lengths,
        flicker=1.0,
        sharpness=1.0,
        raw_flicker=1.0,
        raw_sharpness=1.0,
    )
    return dataclasses.replace(plain, **more)  # type: ignore[arg-type] # `more` has values of every field's type


def pair(speaker: str) -> Pair:
    return Pair(f"{speaker}_0", speaker, "shipped", Path("v"), Path("a"), ())


def test_each_truth_is_compared_with_its_own_stretch_and_frames_without_a_face_are_left_out() -> None:
    nan = float("nan")
    (first, second) = against_truth(figures([1, 2, nan, 4, 5], [10, 20, 30, nan, 50], [3, 2]), [1, 2, nan, 4, 5])
    assert [series.tolist() for series in first] == [[1, 2], [10, 20]]
    assert [series.tolist() for series in second] == [[5], [50]]


def test_a_speakers_clips_are_pooled() -> None:
    up = [0.0, 1, 2, 3]
    results = [
        (pair("x"), figures(up, up, [4])),
        (pair("x"), figures(up, up[::-1], [4])),
        (pair("y"), figures(up, up, [4])),
    ]
    r = by_speaker(results, "shown")
    assert r == {"x": pytest.approx(0), "y": pytest.approx(1)}


def results(shown: list[float], true: list[float], **more: object) -> exemplar_table.Results:
    other = RNG.normal(size=len(shown)).tolist()
    good = figures(shown, true, [len(shown)], **more)
    return {
        "adapted": [(pair("x"), good)],
        "plain": [(pair("x"), good)],
        "shuffled": [(pair("x"), figures(other, true, [len(true)]))],
        "borrowed": [(pair("x"), good)],
    }


SPEED = {size: figures([0.0], [0.0], [1], render_fps=fps) for size, fps in (("512x512", 60.0), ("1080x1920", 20.0))}


def test_rows_pass_and_miss_by_their_figures() -> None:
    series = RNG.normal(size=4000)
    rows = {row.what: row for row in table(results(series.tolist(), series.tolist()), SPEED)}
    assert all(row.passed is not False for what, row in rows.items() if what != "render, 1080p")
    assert rows["render, 1080p"].passed is False
    assert rows["movement (deviation of the opening) against the true mouth"].measured.startswith("1.00 ×")

    late = np.roll(series, 2).tolist()
    worse = table(
        results(late, series.tolist(), asked=series.tolist(), raw_flicker=1.3, sharpness=0.5, changed_outside=1), SPEED
    )
    missed = [row.what for row in worse if row.passed is False]
    assert missed == [
        "opening, re-detected, against the shape asked for",
        "lag against the shape asked for",
        "opening against the true mouth, no adaptation",
        "the same, 3 s clips whole, on another speaker's face",
        "opening against the true mouth, own-voice adaptation",
        "flicker against the source",
        "sharpness against the source",
        "pixels changed outside the mask",
        "render, 1080p",
    ]


def test_the_table_is_markdown() -> None:
    lines = as_lines(table(results([0.0, 1, 2, 5], [0.0, 1, 2, 5]), SPEED))
    assert len({len(line) for line in lines}) == 1
    assert all(line.count("|") == 5 for line in lines)


def test_no_net_is_used_on_a_speaker_it_may_have_seen() -> None:
    speakers = [speaker for group in pairs.FOLDS.values() for speaker in group]
    assert len(speakers) == len(set(speakers))


@pytest.fixture
def clip(tmp_path: Path) -> Piece:
    """Two seconds whose grey and whose sound level tell the time."""
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "1", "bf": "0"})
        video.width = video.height = 64
        sound = container.add_stream("pcm_s16le", rate=RATE, layout="stereo")
        for number in range(2 * FPS):
            pixels = np.full((64, 64, 3), 40 + 3 * number, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            level = np.full((1, 2 * RATE // FPS), 100 * number, np.int16)
            block = av.AudioFrame.from_ndarray(level, format="s16", layout="stereo")
            block.sample_rate, block.pts = RATE, number * RATE // FPS
            container.mux(sound.encode(block))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    return Piece(path, 0, 2 * FPS)


def decoded(path: Path) -> tuple[list[float], list[float]]:
    """The mean grey of each frame and the mean level of each frame's sound, in frame numbers of the clip."""
    with av.open(str(path)) as container:
        grey = [(frame.to_ndarray(format="gray").mean() - 40) / 3 for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        samples = np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])
    return grey, [part.mean() / 100 for part in np.split(samples, len(samples) // (2 * RATE // FPS))]


def test_pieces_are_joined_with_their_own_sound(clip: Piece, tmp_path: Path) -> None:
    pieces = [Piece(clip.path, 30, 40), Piece(clip.path, 5, 12)]
    wanted = [*range(30, 40), *range(5, 12)]
    grey, level = decoded(clips.write_video(tmp_path / "joined.mkv", pieces))
    np.testing.assert_allclose(grey, wanted, atol=0.7)
    np.testing.assert_allclose(level, wanted, atol=0.01)
    with av.open(str(clips.write_sound(tmp_path / "joined.wav", pieces))) as container:
        samples = np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])
    np.testing.assert_allclose([part.mean() / 100 for part in np.split(samples, len(wanted))], wanted, atol=0.01)


def test_repeating_keeps_the_frames_and_an_even_beat(clip: Piece, tmp_path: Path) -> None:
    video = clips.write_video(tmp_path / "once.mkv", [clip])
    longer = clips.repeat_media(video, tmp_path / "longer.mkv", 5.0)
    grey, level = decoded(longer)
    wanted = [number % 50 for number in range(125)]
    np.testing.assert_allclose(grey, wanted, atol=0.7)
    np.testing.assert_allclose(level, wanted, atol=0.01)
    with av.open(str(longer)) as container:
        times = [float(frame.time or 0) for frame in container.decode(video=0)]
    np.testing.assert_allclose(np.diff(times), 1 / FPS, atol=0.002)


def test_a_square_is_cut_around_a_point_and_stays_inside() -> None:
    pixels = np.zeros((80, 60, 3), np.uint8)
    pixels[60:, 40:] = 200
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    corner = clips.square_around(60, 80, 20)(frame).to_ndarray(format="rgb24")
    assert corner.shape == (20, 20, 3)
    np.testing.assert_allclose(corner, 200, atol=3)
    np.testing.assert_allclose(clips.square_around(20, 20, 20)(frame).to_ndarray(format="rgb24"), 0, atol=3)


def test_speakers_are_split_so_that_no_frame_is_source_and_truth() -> None:
    for count in (1, 2, 4, 51):
        whole = [Piece(Path(str(number)), 0, 75) for number in range(count)]
        splits = pairs._splits(whole)
        assert len(splits) == (1 if count == 51 else 2)
        for source, sound in splits:
            assert source
            assert sound
            frames = [
                {(piece.path, k) for piece in side for k in range(piece.first, piece.stop)} for side in (source, sound)
            ]
            assert not frames[0] & frames[1]


def test_short_single_clips_are_halved_and_also_lent_another_face(
    clip: Piece, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.mkv"
    other.write_bytes(clip.path.read_bytes())
    (tmp_path / "index.csv").write_text(f"file,speaker\n{clip.path.name},p\n{other.name},q\n", encoding="utf-8")
    monkeypatch.setattr(pairs, "FOLDS", {"shipped": ("p", "q")})
    made = pairs.make_pairs(tmp_path, tmp_path, {"shipped": None}, frozenset({"p"}))
    assert [(pair.speaker, pair.borrowed) for pair in made] == [("p", False), ("p", False), ("p", True)]
    spans = [[(piece.first, piece.stop) for piece in pair.truth] for pair in made]
    assert spans == [[(25, 50)], [(0, 25)], [(0, 50)]]
    grey, _ = decoded(made[0].video)
    np.testing.assert_allclose(grey, range(25), atol=0.7)
    assert all(piece.path == clip.path for pair in made for piece in pair.truth)
    whole = clips.clips_by_speaker(tmp_path)["q"]
    assert [len(piece) for piece in whole] == [50]


def test_a_net_that_saw_a_speaker_is_refused_before_any_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = tmp_path / "net.npz"
    net.touch()
    seen = {None: frozenset({"somebody"}), net.resolve(): frozenset({"grid_s2"})}
    monkeypatch.setattr(exemplar_table, "speakers_seen", seen.get)
    with pytest.raises(SystemExit):
        exemplar_table.main(["--weights", f"a={net}"])
    assert "trained on grid_s2" in capsys.readouterr().err


def test_the_packaged_net_never_saw_the_speakers_it_is_measured_on() -> None:
    seen = pairs.speakers_seen(None)
    assert seen
    assert not seen.intersection(pairs.FOLDS[pairs.SHIPPED])
