"""The checks: one list for each stage. A check takes a `Case` and raises `CheckFailed` with what to do about it.

The first line of a check's docstring is what it asks.
"""

from __future__ import annotations

import copy
import gc
import json
import subprocess
import sys
import threading
import tracemalloc
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipsync_core.backends import StageKind
from lipsync_core.registry import GROUP
from lipsync_core.stages import Closable
from lipsync_core.testing import samples
from lipsync_core.testing.case import Case, Check, CheckFailed, NotAsked, arrays
from lipsync_core.testing.drivers import FRAMES, Output, Parts
from lipsync_core.types import GeneratedFaces, MouthMask

_LENGTHS: Final = (1, 2, 16, 17)  # one frame, two, LatentSync's window, and one more than that
_CLOSE: Final = 2e-4  # what another order of the same float32 sums may change
_LEVEL: Final = 1  # and what rounding then makes of it in 8 bits
_CALLS: Final = 50
_SLACK_BYTES: Final = 512 * 1024  # caches a library fills while it is used
_HEAVY: Final = (
    "cv2 diffusers jax librosa numba numpy onnx onnxruntime pandas scipy sklearn tensorflow torch transformers"
)
_PROBE: Final = """
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
import lipsync_core
before = set(sys.modules)
importlib.import_module(sys.argv[2])
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""
_WITHOUT: Final = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(json.loads(sys.argv[2])))
from lipsync_core.registry import discover
print(json.dumps([[e.spec.kind, e.spec.name, e.state, e.detail] for e in discover().entries]))
"""


def name_and_spec(case: Case) -> None:
    """The backend is listed once, can be used, and its class has what its stage asks for."""
    if not case.spec.summary.strip() or "\n" in case.spec.summary:
        raise CheckFailed("`summary` of its BackendSpec is not one line.", "Say in one line what the backend does.")
    backend = case.create()
    absent = [name for name in case.driver.attributes if not hasattr(backend, name)]
    if absent:
        raise CheckFailed(
            f"{case.spec.factory} has no {', '.join(absent)}.", "Add what the stage's Protocol in stages.py names."
        )


def plugin_import_is_light(case: Case) -> None:
    """Importing the plugin's module, in a process of its own, imports nothing that takes time."""
    point = _entry_point(case)
    imported = set(_python(_PROBE, point.module))
    heavy = sorted(imported & {*_HEAVY.split(), *(name.partition(".")[0] for name in case.spec.requires)})
    if heavy:
        raise CheckFailed(
            f"Importing {point.module} imports {', '.join(heavy)}.",
            "Import it in the backend's own module, which is imported only when the backend is used.",
        )


def missing_dependency_is_named(case: Case) -> None:
    """Where a module it requires is missing, the backend is listed so, with the line that installs it."""
    if not case.spec.requires:
        raise NotAsked("it requires no module")
    if "install" not in case.spec.install:
        raise CheckFailed(
            f"It requires {', '.join(case.spec.requires)}, and its BackendSpec does not say how to install that.",
            'Set `install` to the command, such as "pip install their-package".',
        )
    rows = _python(_WITHOUT, json.dumps(case.spec.requires))
    states = [(state, detail) for kind, name, state, detail in rows if (kind, name) == (case.kind, case.name)]
    if not states or states[0][0] != "missing" or case.spec.install not in states[0][1]:
        raise CheckFailed(
            f"Without {', '.join(case.spec.requires)} it is listed as {states or 'nothing at all'}.",
            "Import what it requires in the backend's module, not in plugin.py.",
        )


def options_are_strict_and_described(case: Case) -> None:
    """The options model is frozen, forbids unknown fields, has defaults, and describes every field."""
    model = case.registry.options_model(case.entry)
    if model.model_config.get("extra") != "forbid" or not model.model_config.get("frozen"):
        raise CheckFailed(
            f"{case.spec.options} takes unknown options, or its options can be changed.",
            'Give it model_config = ConfigDict(extra="forbid", frozen=True).',
        )
    bare = [name for name, field in model.model_fields.items() if not (field.description or "").strip()]
    if bare:
        raise CheckFailed(
            f"{case.spec.options} does not describe {', '.join(bare)}.",
            "Write each field as Field(default, description=...), with the unit.",
        )
    needed = [name for name, field in model.model_fields.items() if field.is_required()]
    if needed:
        raise CheckFailed(
            f"{case.spec.options} cannot be made without {', '.join(needed)}.", "Give every option a default."
        )


def shapes_and_range(case: Case) -> None:
    """1, 2, 16 and 17 frames give arrays of the right shape, dtype and range."""
    backend = case.create()
    for count in _LENGTHS:
        inputs = case.driver.inputs(backend, 0, count)
        fault = case.driver.fault(backend, inputs, case.driver.run(backend, inputs, _size(case, backend, count)))
        if fault:
            raise CheckFailed(f"For {count} frames, {fault}.", f"Return what {_method(case)} in stages.py asks for.")


def same_however_cut(case: Case) -> None:
    """The result does not depend on how the stream is cut into pieces."""
    backend = case.create()
    longest = _size(case, backend, 17)
    whole = case.driver.run(backend, case.driver.inputs(backend, 0, 17), longest)
    for size in sorted({1, min(3, longest)}):
        pieces = case.driver.run(backend, case.driver.inputs(backend, 0, 17), size)
        _same(
            whole,
            pieces,
            f"In pieces of {size} the result is another than in pieces of {longest}",
            "Let a frame's result depend on that frame alone, and keep no state from one call to the next; "
            "a model that looks at a whole chunk says so in `expected_failures`.",
        )


def same_again(case: Case) -> None:
    """The same input and noise give the same result: again, after other input, and from a new instance."""
    backend = case.create()
    size = _size(case, backend, 4)

    def run(instance: Any, start: int = 0) -> Output:
        return _copy(case.driver.run(instance, case.driver.inputs(instance, start, start + 4), size))

    first = run(backend)
    cure = "Draw no random numbers (use the noise that is given), and forget one call before the next."
    _same(first, run(backend), "The same call gives another result the second time", cure)
    run(backend, 9)
    _same(first, run(backend), "After a call with other frames the same call gives another result", cure)
    _same(first, run(case.create()), "A new instance gives another result", cure)


def inputs_unchanged(case: Case) -> None:
    """Inputs that cannot be written to are accepted, and those that can be are left as they were."""
    backend = case.create()
    inputs = case.driver.inputs(backend, 0, 4)
    before = copy.deepcopy(inputs)
    cure = "Copy an array before writing into it."
    case.driver.run(backend, inputs, _size(case, backend, 4))
    _same(tuple(arrays(before)), tuple(arrays(inputs)), "It changed its input", cure, exact=True)
    for array in arrays(inputs):
        array.flags.writeable = False
    try:
        case.driver.run(backend, inputs, _size(case, backend, 4))
    except Exception as error:
        raise CheckFailed(f"Given arrays that cannot be written to, it raised {error!r}.", cure) from error


def earlier_output_kept(case: Case) -> None:
    """A later call leaves the arrays of an earlier one alone."""
    backend = case.create()
    size = _size(case, backend, 4)
    earlier = case.driver.run(backend, case.driver.inputs(backend, 0, size), size)
    kept = _copy(earlier)
    for start in (size, 2 * size):
        case.driver.run(backend, case.driver.inputs(backend, start, start + size), size)
    _same(kept, earlier, "A later call wrote into an earlier result", "Return a new array each time.", exact=True)


def no_face_no_change(case: Case) -> None:
    """Where there is no face, or nothing to generate, the frame stays as it is, byte for byte."""
    backend = case.create()
    if case.kind is StageKind.ALIGNER:
        found = case.driver.run(backend, samples.empty_frames(0, 5), 5)[0]
        if found.any():
            raise CheckFailed(
                f"It finds a face in {int(found.sum())} of 5 frames that show none.",
                "Set `found` to False there; the pipeline passes those frames on as they are.",
            )
        return
    inputs = case.driver.inputs(backend, 0, 4)
    nothing = MouthMask(np.zeros_like(inputs.mask.generate))
    out = case.driver.run(backend, Parts(inputs.frames, inputs.faces, nothing, inputs.generated), 4)
    cure = "Where the mask is 0 return the bytes of `frames`: no conversion and no resampling there."
    _same((inputs.frames.pixels,), out, "With an empty mask the frames change", cure, exact=True)
    (out_of_mask,) = case.driver.run(backend, inputs, 4)
    far = np.ones(out_of_mask.shape[1:3], np.bool_)
    left, top = (-inputs.faces.track.frame_to_crop[0, :, 2]).astype(int)
    far[top : top + samples.NATIVE_SIDE, left : left + samples.NATIVE_SIDE] = False
    _same((inputs.frames.pixels[:, far],), (out_of_mask[:, far],), "Pixels outside the crop change", cure, exact=True)


def other_colour_shows(case: Case) -> None:
    """What was generated shows in the frame where the mask is 1."""
    backend = case.create()
    inputs = case.driver.inputs(backend, 0, 2)
    white = GeneratedFaces(np.ones_like(inputs.generated.pixels))
    (out,) = case.driver.run(backend, Parts(inputs.frames, inputs.faces, inputs.mask, white), 2)
    if not (out.astype(int) - inputs.frames.pixels).max() > 0:
        raise CheckFailed("Nothing of the generated crops is to be seen in the frames.", "Blend them in by the mask.")


def overshoot_is_clipped(case: Case) -> None:
    """Generated pixels brighter than white and darker than black are shown as white and black."""
    backend = case.create()
    inputs = case.driver.inputs(backend, 0, 2)

    def shown(value: float) -> NDArray[np.int64]:
        generated = GeneratedFaces(np.full_like(inputs.generated.pixels, value))
        parts = Parts(inputs.frames, inputs.faces, inputs.mask, generated)
        return case.driver.run(backend, parts, 2)[0].astype(np.int64)

    if (shown(1.5) < shown(1.0) - _LEVEL).any() or (shown(-0.5) > shown(0.0) + _LEVEL).any():
        raise CheckFailed("Beyond white it gets darker, or beyond black brighter.", "Clip before converting to uint8.")


def silence_around_the_sound(case: Case) -> None:
    """Times before the sound begins and after it ends are answered too, and no sound at all is silence."""
    backend = case.create()
    inputs = case.driver.inputs(backend, 0, 4)
    cure = "Treat what lies before and after the samples as silence."
    for sound in (inputs.samples, inputs.samples[:0]):
        wide = type(inputs)(sound, np.array([-3.0, -0.02, 0.0, 60.0, 61.0]))
        fault = case.driver.fault(backend, wide, case.driver.run(backend, wide, 5))
        if fault:
            raise CheckFailed(f"For times around {len(sound)} samples, {fault}.", cure)


def two_threads(case: Case) -> None:
    """Two instances working in two threads give what each gives alone."""
    results: dict[int, Output | BaseException] = {}
    backends = [case.create(), case.create()]
    size = _size(case, backends[0], 4)

    def work(number: int) -> None:
        try:
            for _ in range(3):
                inputs = case.driver.inputs(backends[number], 5 * number, 5 * number + 4)
                results[number] = _copy(case.driver.run(backends[number], inputs, size))
        except BaseException as error:
            results[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cure = "Keep what an instance needs in the instance: no global or class variable that calls write to."
    for number, result in results.items():
        if isinstance(result, BaseException):
            raise CheckFailed(f"In a thread beside another it raised {result!r}.", cure) from result
        alone = case.create()
        expected = case.driver.run(alone, case.driver.inputs(alone, 5 * number, 5 * number + 4), size)
        _same(expected, result, "Beside another instance in another thread it gives another result", cure)


def close_twice(case: Case) -> None:
    """`close()`, where there is one, can be called twice."""
    backend = case.create()
    if not isinstance(backend, Closable):
        raise NotAsked("it has no `close`")
    backend.close()
    try:
        backend.close()
    except Exception as error:
        raise CheckFailed(
            f"The second close() raised {error!r}.", "Let close() do nothing where there is nothing left to release."
        ) from error


def memory_is_flat(case: Case) -> None:
    """Fifty calls leave no more memory in use than the first ones did.

    Python's and NumPy's is seen, what a library allocates by itself is not.
    """
    backend = case.create()
    inputs = case.driver.inputs(backend, 0, 1)
    tracemalloc.start()
    try:
        for _ in range(3):
            output = case.driver.run(backend, inputs, 1)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(_CALLS):
            output = case.driver.run(backend, inputs, 1)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    if grown > _SLACK_BYTES + 5 * sum(array.nbytes for array in output):
        raise CheckFailed(
            f"After {_CALLS} calls {grown / 1e6:.1f} MB more are in use.", "Let go of each call's arrays when it ends."
        )


def agrees_with_reference(case: Case) -> None:
    """The result is that of the reference backend, within the tolerance declared."""
    reference = case.create_reference()
    backend = case.create()
    size = min(_size(case, backend, 17), _size(case, reference, 17))
    inputs = case.driver.inputs(backend, 0, 17)
    ours, theirs = case.driver.run(backend, inputs, size), case.driver.run(reference, copy.deepcopy(inputs), size)
    distance = _distance(theirs, ours)
    if not distance <= case.tolerance:
        raise CheckFailed(
            f"It differs from {case.reference} by up to {distance:.4g}; {case.tolerance:g} is declared.",
            "Find out which of the two is wrong, or declare the tolerance that the difference is worth.",
        )


_FIRST: Final[tuple[Check, ...]] = (
    name_and_spec,
    plugin_import_is_light,
    missing_dependency_is_named,
    options_are_strict_and_described,
    shapes_and_range,
    same_however_cut,
    same_again,
    inputs_unchanged,
    earlier_output_kept,
)
_LAST: Final[tuple[Check, ...]] = (two_threads, close_twice, memory_is_flat, agrees_with_reference)

CHECKS: Final[dict[StageKind, tuple[Check, ...]]] = {
    StageKind.AUDIO: (*_FIRST, silence_around_the_sound, *_LAST),
    StageKind.ALIGNER: (*_FIRST, no_face_no_change, *_LAST),
    StageKind.MASKER: (*_FIRST, *_LAST),
    StageKind.DENOISER: (*_FIRST, *_LAST),
    StageKind.COMPOSITOR: (*_FIRST, no_face_no_change, other_colour_shows, overshoot_is_clipped, *_LAST),
}


def _method(case: Case) -> str:
    return f"`{case.driver.attributes[-1]}`"


def _size(case: Case, backend: Any, wanted: int) -> int:
    return max(1, min(wanted, case.driver.longest(backend), FRAMES))


def _copy(output: Output) -> Output:
    return tuple(array.copy() for array in output)


def _distance(a: Output, b: Output) -> float:
    """Return the greatest difference of two outputs, infinite where they differ in shape."""
    if len(a) != len(b) or any(x.shape != y.shape for x, y in zip(a, b, strict=True)):
        return float("inf")
    pairs = [(x.astype(np.float64), y.astype(np.float64)) for x, y in zip(a, b, strict=True) if x.size]
    return max((float(np.abs(np.nan_to_num(x) - np.nan_to_num(y)).max()) for x, y in pairs), default=0.0)


def _same(expected: Output, got: Output, what: str, cure: str, *, exact: bool = False) -> None:
    for x, y in zip(expected, got, strict=True):
        allowed = (
            0.0
            if exact
            else _LEVEL
            if x.dtype == np.uint8
            else _CLOSE * max(1.0, float(np.abs(np.nan_to_num(x)).max(initial=0)))
        )
        distance = _distance((x,), (y,))
        if distance > allowed:
            raise CheckFailed(f"{what} (by up to {distance:.4g}).", cure)


def _entry_point(case: Case) -> Any:
    origin = case.entry.origin
    for point in entry_points(group=GROUP):
        if point.name == origin.entry_point and point.dist and point.dist.name == origin.distribution:
            return point
    raise NotAsked(f"the entry point {origin.entry_point} of {origin.distribution} is not installed")


def _python(code: str, argument: str) -> Any:
    """Run code in a Python of its own and return the JSON it prints; raises `CheckFailed` with what it complains of."""
    paths = json.dumps([str(Path(path).absolute()) for path in sys.path])
    done = subprocess.run([sys.executable, "-c", code, paths, argument], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CheckFailed(f"In a process of its own the plugin failed: {last}.", "Mend what it raises.")
    return json.loads(done.stdout)
