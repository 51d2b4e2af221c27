from __future__ import annotations

from pathlib import Path

import numpy as np


def test_held_out_speakers_are_never_trained_on(prepared: Path) -> None:
    from mini_training import footage

    assert {clip.speaker for clip in footage.load(prepared, held_out=False)} == {"one", "two"}
    unseen = {clip.speaker for clip in footage.load(prepared, held_out=True)}
    assert unseen == {"grid_s30", "grid_uC", "grid_uD", "ls_1"}


def test_the_audio_net_was_not_trained_on_them_either() -> None:
    import json
    from importlib.resources import files

    from mini_training.recipe import HELD_OUT

    with np.load(str(files("lipsync_audio") / "data" / "mouth_shape.npz")) as archive:
        assert set(json.loads(str(archive["metadata"]))["left_out"]) == set(HELD_OUT)


def test_the_zoom_keeps_its_centre_and_enlarges_around_it() -> None:
    from mini_training.footage import zoomed
    from mini_training.recipe import SIDE, ZOOM, ZOOM_CENTRE

    matrix = np.array([[[1.5, 0.2, 7.0], [-0.2, 1.5, -3.0]]])
    centre = np.array(ZOOM_CENTRE) * SIDE - 0.5
    point = np.linalg.solve(matrix[0, :, :2], centre - matrix[0, :, 2])
    result = zoomed(matrix)
    assert np.allclose(result[0, :, :2] @ point + result[0, :, 2], centre)
    assert np.allclose(result[0, :, :2], ZOOM * matrix[0, :, :2])
