"""Identity: ids given out once never change, and exactly what decides a result is part of them."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil

import pytest

from models import identity

RECIPE = {
    "model": "0123456789abcdef",
    "prompt": "What is it?",
    "labels": {"yes": "It is.", "no": "It is not."},
    "grammar": "observation",
    "frames": {"count": 8, "max_pixels": 3136, "fps": 4.0, "fit": "aspect", "sampling": "uniform"},
    "sampling": {"temperature": 1.0, "top_p": 1.0, "max_tokens": 64, "stop": []},
    "dtype": "float32",
    "seed": 0,
}
WRITTEN = (
    '{"dtype":"float32","frames":{"count":8,"fps":4.0,"max_pixels":3136},"grammar":"observation",'
    '"labels":["yes","no"],"model":"0123456789abcdef","origin":"model","policy":"229e318271fcfca5",'
    '"prompt":"What is it?","sampling":{"max_tokens":64,"temperature":1.0},"seed":0}'
)


def recipe_id(**changes) -> str:
    return identity.digest(identity.recipe(**RECIPE | changes))


def test_known_recipes_keep_their_ids():
    assert identity.canonical(identity.recipe(**RECIPE)) == WRITTEN
    assert recipe_id() == "77d20ba3361cded4" == hashlib.sha256(WRITTEN.encode()).hexdigest()[:16]


def test_known_scorers_and_rules_keep_their_ids():
    value = identity.scorer(recipes=["0123456789abcdef"], rollouts=4, calibrator="a" * 16, calibration="b" * 16)
    assert identity.digest(value) == "7e918187431b517e"
    assert identity.digest({"threshold": 0.6, "coverage": 0.9}) == "b340660600b96f40"


@pytest.mark.parametrize(
    "change",
    [
        {"model": "f" * 16},
        {"prompt": "What is it? "},
        {"labels": {"yes": "It is!", "no": "It is not."}},
        {"grammar": "think_answer"},
        {"frames": RECIPE["frames"] | {"count": 16}},
        {"sampling": RECIPE["sampling"] | {"temperature": 0.0}},
        {"sampling": RECIPE["sampling"] | {"stop": ["</answer>"]}},
        {"dtype": "bfloat16"},
        {"seed": 1},
        {"salt": "again"},
        {"frames": RECIPE["frames"] | {"fit": "square"}},
        {"frames": RECIPE["frames"] | {"sampling": "scene"}},
        {"sampling": RECIPE["sampling"] | {"top_p": 0.9}},
        {"adapter": "c" * 16},
        {"quantization": "fp8"},
        {"checks": {"codes": ["Yes", "No"], "questions": {"yes": "Is it?", "no": "Is it not?"}}},
        {"texts": {"before": "It came with:", "fields": [["title", 200]]}},
    ],
)
def test_whatever_decides_a_rollout_changes_the_recipe(change):
    assert recipe_id(**change) != recipe_id()


def test_the_order_of_labels_is_part_of_a_recipe():
    turned = dict(reversed(RECIPE["labels"].items()))
    assert turned == RECIPE["labels"] and recipe_id(labels=turned) != recipe_id()


def test_the_order_and_the_framing_of_texts_are_part_of_a_recipe():
    """What comes back from a registry, whose JSON is sorted by key, is the same recipe and no other."""
    fields = [["transcript", 400], ["title", 200]]
    known = recipe_id(texts={"before": "It came with:", "fields": fields})
    assert known != recipe_id(texts={"before": "It came with:", "fields": fields[::-1]})
    assert known != recipe_id(texts={"before": "Somebody said:", "fields": fields})
    value = identity.recipe(**RECIPE, texts={"before": "It came with:", "fields": fields})
    read = json.loads(identity.canonical(value))
    assert identity.digest(read) == known and read["texts"]["fields"] == fields


def test_the_order_of_other_keys_is_not():
    assert recipe_id(frames=dict(reversed(RECIPE["frames"].items()))) == recipe_id()


def test_what_is_at_its_neutral_value_is_left_out_nested_parts_included():
    """A field that comes later, in `frames` as well, leaves the ids that were given out as they are."""
    before = {
        "frames": {"count": 8, "max_pixels": 3136, "fps": 4.0},
        "sampling": {"temperature": 1.0, "max_tokens": 64},
    }
    rare = {"salt": "", "adapter": "", "quantization": "", "checks": None, "texts": {}}
    assert identity.recipe(**RECIPE | before) == identity.recipe(**RECIPE, **rare) == identity.recipe(**RECIPE)


def test_a_teachers_recipe_names_teacher_and_source():
    value = {"teacher": "gpt", "source": "files", "labels": ["yes", "no"], "grammar": "observation"}
    known = identity.digest(identity.teacher_recipe(**value))
    assert known == "3886761d6e9c54c4" == identity.digest(identity.teacher_recipe(**value, version={}))
    for change in (
        *({"teacher": "human"}, {"source": "other"}, {"labels": ["no", "yes"]}, {"grammar": "thinker"}),
        *({"version": {"file": "a" * 16}}, {"version": {"model": "b" * 16, "n": 2}}),
    ):
        assert identity.digest(identity.teacher_recipe(**value | change)) != known


def test_a_corrected_source_of_traces_is_another_teacher():
    value = {"teacher": "gpt", "source": "files", "labels": ["yes", "no"], "grammar": "observation"}
    of_file = identity.teacher_recipe(**value, version={"file": "a" * 16})
    assert identity.digest(of_file) == "585eaade66cf71d6"
    assert identity.digest(identity.teacher_recipe(**value, version={"file": "b" * 16})) != identity.digest(of_file)


def test_how_many_rollouts_are_drawn_is_not_part_of_a_recipe():
    from conf.settings import load
    from jobs.steps.recipes import of_settings

    assert of_settings(load(None, ["rollout.n=8"])).id == of_settings(load(None, ["rollout.n=4"])).id
    assert of_settings(load(None, ["rollout.seed=1"])).id != of_settings(load()).id


def test_how_many_rollouts_are_looked_at_is_part_of_a_scorer():
    same = {"recipes": ["r"], "calibrator": "c", "calibration": "t"}
    assert identity.digest(identity.scorer(rollouts=4, **same)) != identity.digest(identity.scorer(rollouts=8, **same))


def test_a_number_that_is_none_has_no_id():
    with pytest.raises(ValueError):
        identity.digest({"threshold": math.nan})


@pytest.fixture
def folder(tmp_path):
    shutil.copytree("models/handwriting/checkpoint", tmp_path / "model")
    return tmp_path / "model"


def test_a_copy_of_a_model_is_the_same_model(folder):
    assert identity.model_digest(str(folder)) == identity.model_digest("models/handwriting/checkpoint")


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "tokenizer.json", "chat_template.jinja", "processor_config.json", "generation_config.json"],
)
def test_a_changed_part_makes_another_model(folder, name):
    before = identity.model_digest(str(folder))
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(data)
    assert identity.model_digest(str(folder)) != before


def test_a_part_under_another_name_makes_another_model(folder):
    before = identity.model_digest(str(folder))
    (folder / "chat_template.jinja").rename(folder / "other.jinja")
    assert identity.model_digest(str(folder)) != before


def test_notes_and_logs_beside_a_model_change_nothing(folder):
    before = identity.model_digest(str(folder))
    (folder / "TRAINING.md").write_text("Rewritten.")
    (folder / "train.log").write_text("step 1")
    (folder / "manifest.json").write_text("{}")
    (folder / ".cache").mkdir()
    assert identity.model_digest(str(folder)) == before


def test_a_folder_without_weights_is_refused_by_name(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model: no \*\.safetensors"):
        identity.model_digest(str(folder))


def test_the_folder_of_a_training_leads_to_the_model_in_it(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(
        FileNotFoundError, match=rf"no \*.safetensors in it; perhaps {re.escape(str(tmp_path / 'model'))}"
    ):
        identity.model_digest(str(tmp_path))
