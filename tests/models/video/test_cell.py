"""What one token shows, read from folders laid out as the models are published and as transformers writes them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import models.handwriting
from models.video.cell import cell_of

PLAIN = {"patch_size": 14, "merge_size": 2}


def folder(tmp_path: Path, **files: object) -> str:
    for name, value in files.items():
        (tmp_path / f"{name}.json").write_text(value if isinstance(value, str) else json.dumps(value))
    return str(tmp_path)


def test_the_embedded_checkpoint_shows_14_pixels_a_token():
    assert cell_of(str(Path(models.handwriting.__file__).parent / "checkpoint")) == 14


@pytest.mark.parametrize(
    ("files", "cell"),
    [
        ({"preprocessor_config": PLAIN}, 28),  # Qwen2.5-VL as published
        ({"preprocessor_config": PLAIN, "video_preprocessor_config": {"patch_size": 16, "merge_size": 2}}, 32),
        ({"preprocessor_config": PLAIN, "processor_config": {"processor_class": "Qwen2_5_VLProcessor"}}, 28),
        (
            {"preprocessor_config": PLAIN, "processor_config": {"video_processor": {"patch_size": 7, "merge_size": 2}}},
            14,
        ),
    ],
)
def test_the_file_that_transformers_would_take_counts(tmp_path, files, cell):
    assert cell_of(folder(tmp_path, **files)) == cell


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_what_the_processor_itself_says_is_the_same(tmp_path, family):
    from transformers import AutoProcessor

    from benchmarks.families import make

    video = AutoProcessor.from_pretrained(make(tmp_path, family)).video_processor
    assert cell_of(str(tmp_path)) == video.patch_size * video.merge_size == {"qwen2_5_vl": 28, "qwen3_vl": 32}[family]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "expected processor_config.json or video_preprocessor_config.json or preprocessor_config.json"),
        ({"preprocessor_config": {"patch_size": 14}}, r"preprocessor_config.json: merge_size: .* found None"),
        ({"preprocessor_config": {"patch_size": "14", "merge_size": 2}}, r"patch_size: .* found '14'"),
        ({"preprocessor_config": {"patch_size": 14, "merge_size": 0}}, r"merge_size: .* found 0"),
        ({"video_preprocessor_config": "{"}, "video_preprocessor_config.json: not readable as JSON"),
        ({"preprocessor_config": [1]}, "preprocessor_config.json: expected an object, found list"),
    ],
)
def test_what_is_missing_is_named_with_its_file_and_field(tmp_path, files, said):
    with pytest.raises(ValueError, match=said):
        cell_of(folder(tmp_path, **files))


def test_a_driver_loads_no_transformers_for_it():
    code = "import sys, models.video.cell; sys.exit('transformers' in sys.modules or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
