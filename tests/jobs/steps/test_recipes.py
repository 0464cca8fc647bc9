"""From settings to what a model is shown."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from benchmarks import families
from conf.settings import load
from jobs.runtime.errors import UsageError
from jobs.steps import recipes


def recipe(*overrides: str) -> recipes.Recipe:
    return recipes.of_settings(load(None, overrides))


@pytest.mark.parametrize("change", ["fit=square", "count=4", "max_pixels=784", "fps=2"])
def test_whatever_decides_what_is_shown_changes_the_recipe(change):
    found = recipe(f"frames.{change}")
    assert found.id != recipe().id
    name, value = change.split("=")
    assert str(found.json["frames"][name]).removesuffix(".0") == value
    assert getattr(recipes.plan(found, load()).frames, name) == found.json["frames"][name]


def test_what_a_token_shows_is_the_models_own_and_in_no_recipe(tmp_path):
    shutil.copytree("models/handwriting/checkpoint", tmp_path / "model")
    path = tmp_path / "model" / "processor_config.json"
    config = json.loads(path.read_text())
    config["video_processor"]["patch_size"] = 14
    path.write_text(json.dumps(config))
    settings = load(None, [f"model.path={tmp_path / 'model'}"])
    found = recipes.of_settings(settings)
    assert found.json["frames"] == recipe().json["frames"] and found.json["model"] != recipe().json["model"]
    assert recipes.plan(found, settings).frames.cell == 28


def test_fewer_pixels_than_one_token_shows_are_refused_before_anything_starts():
    with pytest.raises(UsageError, match=r"frames: max_pixels: expected at least 196, .* 14 x 14 pixels; found 195"):
        recipe("frames.max_pixels=195")
    assert recipe("frames.max_pixels=196").json["frames"]["max_pixels"] == 196


def test_a_model_that_does_not_say_what_a_token_shows_is_refused(tmp_path):
    shutil.copytree("models/handwriting/checkpoint", tmp_path / "model")
    (tmp_path / "model" / "processor_config.json").unlink()
    with pytest.raises(UsageError, match=r"frames: .*model: expected processor_config.json or"):
        recipe(f"model.path={tmp_path / 'model'}")


def test_a_recipe_of_an_earlier_version_says_what_to_do():
    old = replace(recipe(), json=recipe().json | {"frames": {"count": 8, "size": 56, "fps": 2.0}})
    with pytest.raises(UsageError, match="found count, size, fps: a recipe of an earlier version"):
        recipes.plan(old, load())


def test_pictures_at_uneven_times_need_a_model_that_is_told_each(tmp_path):
    """Qwen2.5-VL is told one distance between pictures, and would take those of `scene` for evenly spread."""
    with pytest.raises(UsageError, match="sampling: expected uniform, as qwen2_5_vl is told how far apart"):
        recipe("frames.sampling=scene")
    folder = families.make(tmp_path, "qwen3_vl")
    found = recipe("frames.sampling=scene", f"model.path={folder}", "frames.max_pixels=4096")
    assert found.json["frames"]["sampling"] == "scene"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("no.such:rule", "rule: expected module:function that can be imported, found 'no.such:rule'"),
        ("models.language.rule:absent", "rule: expected module:function that can be imported"),
        ("math:sqrt", "rule: expected a function in a Python file, whose code can be read; found 'math:sqrt'"),
    ],
)
def test_a_rule_that_is_not_there_is_told_before_anything_runs(rule, said):
    settings = load(None)
    task = settings.labels.model_copy(update={"rule": rule})
    with pytest.raises(UsageError, match=f"task handwriting: {said}"):
        recipes.of_settings(settings.model_copy(update={"labels": task}))


def test_blinded_recipes_differ_in_what_is_shown_and_nothing_else():
    whole = recipes.greedy(recipe())
    found = recipes.blinded(whole)
    assert list(found) == ["shuffled frames", "one frame", "no frames"]
    assert len({whole.id, *(less.id for less in found.values())}) == 4
    for less in found.values():
        assert less.json["frames"] != whole.json["frames"]
        assert less.json | {"frames": whole.json["frames"]} == whole.json
    shown = [recipes.plan(less, load()).frames for less in found.values()]
    assert [(frames.show, frames.count) for frames in shown] == [("shuffled", 8), ("all", 1), ("none", 8)]


def test_an_engine_beside_a_trainer_has_a_cache_of_its_own():
    settings = load(None, ["engine.kv_cache_mb=256"])
    assert recipes.engine_of(settings, settings.model.path, "d").kv_cache_bytes == 256 << 20
    assert recipes.engine_of(settings, settings.model.path, "d", 64).kv_cache_bytes == 64 << 20
    assert recipes.engine_of(load(), settings.model.path, "d").kv_cache_bytes is None
