from __future__ import annotations

import json
from importlib.resources import files


def test_the_packaged_model_says_what_the_recipe_says() -> None:
    from mini_training.export import model_json

    packaged = files("lipsync_core").joinpath("models", "mini", "model.json").read_text()
    assert json.loads(packaged) == json.loads(json.dumps(model_json()))
