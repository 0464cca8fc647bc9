"""A model as numbers: the same from its weights' headers, from its configuration, and from the model itself."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from public import qwen_7b
from safetensors.numpy import save_file

import models.handwriting
from models.footprint import serving
from models.footprint.shape import shape_of

CHECKPOINT = Path(models.handwriting.__file__).parent / "checkpoint"


def test_headers_configuration_and_model_agree(tmp_path):
    from models.training.model import load

    shutil.copy(CHECKPOINT / "config.json", tmp_path)
    found, built = shape_of(str(CHECKPOINT)), shape_of(str(tmp_path))
    assert found == replace(built, stored=found.stored, counted_from=found.counted_from)
    assert (found.counted_from, built.counted_from) == ("the headers of its weights", "its config.json")
    model, _ = load(CHECKPOINT)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert found.parameters == sum(sizes.values()) and found.tensors == len(sizes)
    assert found.vision == sum(parameter.numel() for parameter in model.model.visual.parameters())
    assert found.embedding == found.head == 512 * 192
    assert found.block == sum(parameter.numel() for parameter in model.model.language_model.layers[0].parameters())
    blocks = [*model.model.language_model.layers, *model.model.visual.blocks]
    assert found.root == found.parameters - sum(p.numel() for block in blocks for p in block.parameters())
    assert found.stored == 2 * found.parameters and built.stored is None  # it is stored in bfloat16
    assert (found.queries, found.keys, found.cell, found.merged) == (192, 64, 14, 4)


def test_qwen_7b_has_8_29_billion_parameters(tmp_path):
    shape = shape_of(qwen_7b(tmp_path))
    assert shape.parameters == 8_292_166_656
    assert shape.vision == 676_550_144 and shape.embedding == shape.head == 152064 * 3584
    assert shape.block == 233_057_792  # 2 norms, q k v with biases, o, and three matrices of 3584 x 18944
    assert (shape.cell, shape.patch_values, shape.frames_per_step) == (28, 3 * 2 * 14 * 14, 2)


def test_a_configuration_of_the_older_layout_reads_the_same(tmp_path):
    new = shape_of(qwen_7b(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    text = config.pop("text_config")
    (tmp_path / "config.json").write_text(json.dumps(text | config))
    assert shape_of(str(tmp_path)) == new


def test_a_tied_table_is_counted_once(tmp_path):
    whole = shape_of(qwen_7b(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text()) | {"tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    tied = shape_of(str(tmp_path))
    assert tied.parameters == whole.parameters - whole.head and tied.head == 0 and tied.text == whole.text


@pytest.mark.parametrize("content", [None, "{", '{"model_type": "bert"}'])
def test_a_folder_without_such_a_model_is_named(tmp_path, content):
    if content:
        (tmp_path / "config.json").write_text(content)
    said = r"config.json: expected the configuration of a" if content else "with its config.json; found none in it"
    with pytest.raises(ValueError, match=said):
        shape_of(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x10\0\0\0\0\0\0\0not json at all."])
def test_damaged_weights_are_named(tmp_path, content):
    shutil.copy(CHECKPOINT / "config.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model.safetensors: expected a file of safetensors"):
        shape_of(str(tmp_path))


def test_quantised_weights_are_as_large_as_they_lie_there(tmp_path):
    """Their tensors are packed: what is counted is the model that they stand for."""
    plain = shape_of(str(CHECKPOINT))
    config = json.loads((CHECKPOINT / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(
        {"model.language_model.layers.0.mlp.up_proj.qweight": np.zeros((8, 4), np.int32)}, tmp_path / "m.safetensors"
    )
    packed = shape_of(str(tmp_path))
    assert (packed.parameters, packed.stored, packed.quantization) == (plain.parameters, 8 * 4 * 4, "awq")
    assert serving.weights(packed, serving.Serving("bfloat16", None, 512, 8)) == 8 * 4 * 4
    assert serving.weights(plain, serving.Serving("bfloat16", None, 512, 8)) == 2 * plain.parameters
