from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lipsync_denoiser import mouth_shape as ms
from lipsync_denoiser.choose import _BACK, _HOLD, _JUMP, Candidates, choose, shortest_path

from .drawing import rotation, shapes_of_opening


def _cost(path, candidates, costs, frames, linked):
    total = 0.0
    for t, k in enumerate(path):
        total += costs[t, k]
        if t and linked[t]:
            step = int(frames[candidates[t, k]]) - int(frames[candidates[t - 1, path[t - 1]]])
            total += {-1: _BACK, 0: _HOLD, 1: 0.0}.get(step, _JUMP)
    return total


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 4))
def test_the_path_is_as_cheap_as_the_best_of_all_paths(seed, steps, width):
    rng = np.random.default_rng(seed)
    frames = np.sort(rng.choice(12, 8, replace=False)).astype(np.int64)
    candidates = np.stack([rng.choice(8, width, replace=False) for _ in range(steps)]).astype(np.int64)
    costs = rng.uniform(0, 4, (steps, width))
    linked = rng.random(steps) < 0.7
    found = shortest_path(candidates, costs, frames, linked)
    rows = [int(np.flatnonzero(candidates[t] == found[t])[0]) for t in range(steps)]
    best = min(_cost(p, candidates, costs, frames, linked) for p in product(range(width), repeat=steps))
    assert abs(_cost(rows, candidates, costs, frames, linked) - best) < 1e-9


def _bank(opening, frames=None, **changes):
    n = len(opening)
    fields = {
        "frames": np.arange(n, dtype=np.int64) * 10 if frames is None else frames,
        "shapes": shapes_of_opening(np.asarray(opening, float)),
        "rotation": np.repeat(np.eye(3)[None], n, 0),
        "smile": np.zeros(n),
        "flaw": np.zeros(n),
    }
    return Candidates(**{**fields, **changes})


SPREAD = np.full(8, 0.05)


def _choose(wanted_opening, bank, own=-100, mood=0.0, turned=None, linked=None):
    n = len(wanted_opening)
    return choose(
        shapes_of_opening(np.asarray(wanted_opening, float)),
        np.repeat((np.eye(3) if turned is None else turned)[None], n, 0),
        np.full(n, mood),
        np.full(n, own, np.int64),
        bank,
        SPREAD,
        np.r_[False, np.ones(n - 1, bool)] if linked is None else linked,
    )


def test_the_mouth_of_like_shape_is_chosen():
    bank = _bank([0.0, 0.05, 0.1, 0.15, 0.2])
    np.testing.assert_array_equal(_choose([0.2], bank), [4])
    np.testing.assert_array_equal(_choose([0.0], bank), [0])


def test_between_like_mouths_the_like_pose_wins():
    turned = np.stack([rotation(yaw=0), rotation(yaw=16), rotation(yaw=-16)])
    bank = _bank([0.1, 0.1, 0.1], rotation=turned)
    np.testing.assert_array_equal(_choose([0.1], bank, turned=rotation(yaw=15)), [1])


def test_between_like_mouths_the_flawless_wins():
    np.testing.assert_array_equal(_choose([0.1], _bank([0.1, 0.1], flaw=np.array([1.0, 0.0]))), [1])


def test_a_laugh_is_for_a_laughing_face_only():
    bank = _bank([0.1, 0.11], smile=np.array([3.0, 0.0]))
    np.testing.assert_array_equal(_choose([0.1], bank, mood=0.0), [1])
    np.testing.assert_array_equal(_choose([0.1], bank, mood=3.0), [0])


def test_a_solemn_mouth_is_the_second_choice_for_a_laughing_face():
    bank = _bank([0.1, 0.1], smile=np.array([-1.0, 2.5]))
    np.testing.assert_array_equal(_choose([0.1], bank, mood=2.5), [1])
    np.testing.assert_array_equal(_choose([0.1], bank, mood=0.0), [0])


def test_a_mouth_held_long_neither_freezes_nor_goes_to_and_fro():
    bank = _bank(np.full(30, 0.1), frames=np.arange(30, dtype=np.int64))
    steps = np.diff(_choose(np.full(20, 0.1), bank))
    np.testing.assert_array_equal(steps, 1)
    two = _bank([0.1, 0.1], frames=np.array([4, 5]))
    assert (np.abs(np.diff(_choose(np.full(20, 0.1), two))) > 0).sum() <= 1


def test_the_base_frames_own_mouth_is_preferred():
    bank = _bank([0.1, 0.1, 0.1])
    np.testing.assert_array_equal(_choose([0.1], bank, own=20), [2])


def test_a_mouth_that_would_be_torn_open_costs_more_than_one_as_far_off_that_is_too_open():
    np.testing.assert_array_equal(_choose([0.1], _bank([0.04, 0.16])), [1])


def test_the_choice_runs_on_with_the_source():
    rng = np.random.default_rng(0)
    opening = np.tile(np.abs(np.sin(np.arange(20) / 3)) * 0.2, 2) + rng.normal(0, 0.002, 40)
    bank = _bank(np.maximum(opening, 0), frames=np.arange(40, dtype=np.int64))
    picked = _choose(np.abs(np.sin(np.arange(20) / 3)) * 0.2, bank)
    assert (np.abs(np.diff(picked)) > 1).sum() <= 2


def test_a_gap_in_the_output_costs_no_jump():
    bank = _bank([0.0, 0.0, 0.2], frames=np.array([0, 1, 500]))
    apart = _choose([0.0, 0.13], bank, linked=np.array([False, False]))
    np.testing.assert_array_equal(apart, [0, 2])


def test_long_runs_are_chosen_in_blocks_as_in_one(monkeypatch):
    rng = np.random.default_rng(5)
    bank = _bank(rng.uniform(0, 0.2, 60), frames=np.arange(60, dtype=np.int64))
    wanted = rng.uniform(0, 0.2, 50)
    whole = _choose(wanted, bank)
    monkeypatch.setattr("lipsync_denoiser.choose._BLOCK", 7)
    np.testing.assert_array_equal(_choose(wanted, bank), whole)
    assert ms.COUNT == 8
