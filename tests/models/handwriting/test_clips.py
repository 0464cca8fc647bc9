"""The benchmark's clips and its teacher."""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from in_memory import sample_array
from sklearn.datasets import load_digits

from models.handwriting import clips, digits, teacher, tiny
from models.video.container import Limits
from models.video.frames import on_screen_indices, probe, sample

TRACE = re.compile(
    r"<observation>(\d \d \d \d)</observation><think>([^<>]*(?:[<>]\d[^<>]*)*)</think><answer>(\w+)</answer>"
)


@pytest.mark.parametrize(
    "shown, label",
    [
        ((1, 2, 3, 4), "rising"),
        ((0, 3, 8, 9), "rising"),
        ((9, 7, 2, 0), "falling"),
        ((1, 2, 2, 4), "mixed"),  # a tie is no rise
        ((4, 2, 2, 1), "mixed"),
        ((5, 5, 5, 5), "mixed"),
        ((1, 3, 2, 4), "mixed"),
        ((9, 7, 8, 0), "mixed"),
    ],
)
def test_the_label_rule(shown, label):
    assert clips.label_of(shown) == label


def test_the_subsets_are_disjoint_and_together_everything():
    rows = {subset: np.concatenate(list(by_digit.values())) for subset, by_digit in digits.partition().items()}
    assert set(rows) == {"base", "align", "refine", "calibrate", "test"}
    together = np.concatenate(list(rows.values()))
    assert len(together) == len(set(together.tolist())) == 1797
    target = load_digits().target
    for subset, by_digit in digits.partition().items():
        for digit, own in by_digit.items():
            assert (target[own] == digit).all()
            assert len(own) >= 20, (subset, digit)


def test_a_scene_is_a_pure_function_of_seed_subset_and_index():
    first, again = clips.scene(3, "test", 7), clips.scene(3, "test", 7)
    assert np.array_equal(clips.render(first), clips.render(again))
    others = [clips.scene(4, "test", 7), clips.scene(3, "align", 7), clips.scene(3, "test", 8)]
    assert all(clips.render(other).tobytes() != clips.render(first).tobytes() for other in others)


def test_labels_are_balanced_and_clips_vary():
    scenes = [clips.scene(0, "calibrate", i) for i in range(90)]
    assert Counter(scene.label for scene in scenes) == {"rising": 30, "falling": 30, "mixed": 30}
    assert {scene.label for scene in scenes[:3]} == set(clips.LABELS)
    assert [scene.label for scene in scenes[:3]] != [scene.label for scene in scenes[3:6]] or (
        [scene.label for scene in scenes[3:6]] != [scene.label for scene in scenes[6:9]]
    )
    assert len({scene.paper.shape for scene in scenes}) >= 6
    assert len({scene.fps for scene in scenes}) >= 6 and len({scene.crf for scene in scenes}) >= 8
    assert len({scene.digits for scene in scenes}) > 60
    darker = [scene.ink_color.mean() < scene.paper.mean() for scene in scenes]
    assert 0.2 < np.mean(darker) < 0.6


def test_every_digit_is_on_screen_in_one_of_the_frames_the_model_sees():
    for index in range(60):
        scene = clips.scene(1, "align", index)
        assert tiny.FRAMES.shown(scene.frames / scene.fps) == tiny.FRAMES.count
        times = [(i + 0.5) / scene.fps for i in on_screen_indices(scene.frames, tiny.FRAMES.count)]
        for stroke in scene.strokes:
            assert any(stroke.start <= time < stroke.end for time in times), index


def test_difficulty_zero_is_large_and_clean():
    scene = clips.scene(0, "base", 0, difficulty=0.0)
    assert scene.noise == 0 and scene.blur == 0
    assert all(len(stroke.ink) >= 0.94 * min(scene.paper.shape[:2]) for stroke in scene.strokes)


def test_rendering_some_frames_is_rendering_all_and_choosing():
    scene = clips.scene(0, "base", 5)
    assert np.array_equal(clips.render(scene, [0, 9, 4]), clips.render(scene)[[0, 9, 4]])


def test_real_files_repeat_bit_for_bit_and_decode_back(tmp_path):
    for index in range(4):
        scene = replace(clips.scene(0, "test", index), crf=18)
        clips.write(scene, tmp_path / "one.mp4")
        clips.write(scene, tmp_path / "two.mp4")
        data = (tmp_path / "one.mp4").read_bytes()
        assert data == (tmp_path / "two.mp4").read_bytes()
        measured = probe(data, Limits())
        height, width, _ = scene.paper.shape
        assert (measured.codec, measured.width, measured.height) == ("h264", width, height)
        assert measured.frames == scene.frames and measured.fps == pytest.approx(scene.fps, rel=0.01)
        decoded, drawn = sample(data, tiny.FRAMES, Limits()), sample_array(clips.render(scene), scene.fps, tiny.FRAMES)
        assert np.abs(decoded.pixels.astype(float) - drawn.pixels).mean() < 8
        assert decoded.times == pytest.approx(drawn.times, abs=1e-3)


def test_quality_reaches_the_encoder(tmp_path):
    scene = clips.scene(0, "test", 1)
    for crf in (18, 32):
        clips.write(replace(scene, crf=crf), tmp_path / f"{crf}.mp4")
    assert (tmp_path / "32.mp4").stat().st_size < 0.6 * (tmp_path / "18.mp4").stat().st_size


def test_generate_writes_clips_and_their_labels(tmp_path):
    first = clips.generate(tmp_path, "align", 3, seed=0)
    more = clips.generate(tmp_path, "test", 2, seed=0, start=5, workers=2)
    before = {path.name: path.read_bytes() for path in (*first, *more)}
    with (tmp_path / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["split"] for row in rows] == ["align"] * 3 + ["test"] * 2
    for row in rows:
        assert clips.label_of([int(digit) for digit in row["digits"].split()]) == row["label"]
        assert (tmp_path / row["file"]).exists()
    assert rows[3]["digits"] == " ".join(map(str, clips.scene(0, "test", 5).digits))
    assert clips.generate(tmp_path, "align", 3, seed=0) == first
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.mp4")} == before
    with (tmp_path / "labels.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == rows


def test_every_trace_parses_to_its_digits_and_label():
    for n, shown in enumerate(product(range(0, 10, 3), repeat=4)):
        text = teacher.trace(shown, seed=n)
        seen, thought, given = TRACE.fullmatch(text).groups()
        assert seen == " ".join(map(str, shown)) and text.startswith(teacher.observation(shown))
        assert given == clips.label_of(shown) and thought.endswith(f" {given}")
        for left, sign, right in re.findall(r"(\d)([<>=])(\d)", thought):
            assert {"<": left < right, ">": left > right, "=": left == right}[sign]


def test_the_teacher_varies_its_wording_and_repeats_it():
    texts = {teacher.trace((3, 5, 2, 9), seed) for seed in range(40)}
    assert len(texts) == 6  # three closing words, stopping early or not
    assert teacher.trace((3, 5, 2, 9), 1) == teacher.trace((3, 5, 2, 9), 1)
