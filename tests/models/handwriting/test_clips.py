"""The benchmark's clips and its teacher."""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import pairwise, product

import numpy as np
import pytest
from in_memory import sample_array
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from models.handwriting import clips, digits, scenes, teacher, tiny
from models.handwriting.kinds import KINDS, LOOKALIKES, MIX
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
    assert scenes.label_of(shown) == label


def test_subsets_are_runs_of_forms_and_share_no_image():
    rows = [own for _, own in digits.runs()]
    assert np.array_equal(np.concatenate(rows), np.arange(1797))  # every image once, in the order of the data set
    numbers = {subset: [hand.number for hand in digits.hands(subset)] for subset in digits.SUBSETS}
    assert set(numbers) == {"base", "align", "refine", "calibrate", "dev", "test"}
    assert [n for own in numbers.values() for n in own] == list(range(len(rows)))
    forms = [{hand.form for hand in digits.hands(subset)} for subset in digits.SUBSETS]
    assert sorted(form for own in forms for form in own) == list(range(14))  # each in one subset
    data = load_digits()
    for subset in digits.SUBSETS:
        for hand in digits.hands(subset):
            assert {digit for digit, ink in hand.ink.items() if len(ink)} == set(range(10))
            own = {
                digit: data.images[rows[hand.number]][data.target[rows[hand.number]] == digit] for digit in range(10)
            }
            assert all(np.array_equal(hand.ink[digit], own[digit].astype(np.float32) / 16) for digit in range(10))


def test_forms_begin_where_the_same_text_begins_anew():
    text = "".join(map(str, load_digits().target))
    forms = [text[begin:end] for begin, end in pairwise((*digits.FORMS, len(text)))]
    assert all(SequenceMatcher(None, forms[0], form).ratio() > 0.95 for form in forms)
    off = [text[begin + 20 : end + 20] for begin, end in pairwise(digits.FORMS)]
    assert all(SequenceMatcher(None, forms[0], form).ratio() < 0.9 for form in off)


def test_what_a_model_meets_grows_from_subset_to_subset():
    kinds = {subset: set(mix) for subset, mix in MIX.items()}
    assert kinds["align"] < kinds["refine"] == kinds["calibrate"] == kinds["dev"] < kinds["test"] == set(KINDS)
    assert {"turned", "rewound"} <= kinds["refine"] and not {"turned", "rewound"} & kinds["base"]
    before = set().union(*(met for subset, met in kinds.items() if subset != "test"))
    assert kinds["test"] - before == {"occluded", "written"}
    met = Counter(scenes.scene(0, "test", index).kind for index in range(0, 3 * len(MIX["test"])))
    assert met == {kind: 3 * times for kind, times in Counter(MIX["test"]).items()}


def test_kinds_are_what_they_are_called():
    found = {}
    for index in range(0, 3 * len(MIX["test"]), 3):
        found.setdefault(scenes.scene(2, "test", index).kind, scenes.scene(2, "test", index))
    plain, turned, rewound = (found[kind] for kind in ("plain", "turned", "rewound"))
    assert found["inverted"].ink_color.mean() < found["inverted"].paper.mean()
    assert plain.ink_color.mean() > plain.paper.mean()
    assert any(tuple(sorted(pair)) in LOOKALIKES for pair in pairwise(found["lookalikes"].digits))
    assert found["compressed"].crf > 35 > plain.crf
    assert found["occluded"].over[..., 3].mean() > 0.05 and plain.over.max() == 0
    shape = np.array(found["aspects"].paper.shape[:2])
    assert shape.max() >= 1.8 * shape.min()
    assert [stroke.digit for stroke in rewound.strokes] == list(rewound.digits[::-1])
    assert [stroke.digit for stroke in turned.strokes] == list(turned.digits)
    upright = replace(turned, turned=False)
    assert np.array_equal(turned.frame(3), upright.frame(3)[::-1, ::-1])
    reds = [scene.frame(3)[:3].reshape(-1, 3).mean(0) for scene in (rewound, plain)]
    assert reds[0][0] > 2 * reds[0][1:].max() and reds[1][0] < 2 * reds[1][1:].max()
    alone, among = (scenes.scene(2, "test", index) for index in (0, 1))
    assert (alone.kind, alone.hand) == (among.kind, among.hand)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """600 files of the subset test, with their rows."""
    folder = tmp_path_factory.mktemp("many")
    paths = clips.generate(folder, "test", 600, seed=3)
    with (folder / "labels.csv").open(newline="") as file:
        return paths, list(csv.DictReader(file))


def test_facts_of_files_do_not_tell_the_label(many):
    """Name, place, size, duration, rate, shape, codec's quality: a classifier that sees them alone stays at chance."""
    paths, rows = many
    facts = []
    for number, path in enumerate(paths):
        data = path.read_bytes()
        found = probe(data, Limits())
        of_name = [number % 3, number % 7, *(int(sign) for sign in re.findall(r"\d", path.stem))]
        of_probe = [found.duration_s, found.frames, found.fps, found.width, found.height]
        size = len(data)
        facts.append([*of_name, *of_probe, size, size / found.frames, size / found.frames / found.width / found.height])
    labels = [row["label"] for row in rows]
    triples = np.arange(len(rows)) // 3  # of one kind and hand
    for model in (
        RandomForestClassifier(200, random_state=0, min_samples_leaf=5),
        make_pipeline(StandardScaler(), SVC()),
    ):
        right = cross_val_score(model, np.array(facts), labels, groups=triples, cv=GroupKFold(10)).mean()
        assert abs(right - 1 / 3) < 3 * np.sqrt(2 / 9 / len(rows)), right


def test_kinds_and_hands_are_in_the_labels_file_and_tell_nothing_of_the_label(many):
    _, rows = many
    for column in ("kind", "hand", "form"):
        by_value = {row[column]: Counter() for row in rows}
        for row in rows:
            by_value[row[column]][row["label"]] += 1
        assert all(len(set(counts.values())) == 1 for counts in by_value.values())
    assert len({row["hand"] for row in rows}) == 20 and {row["form"] for row in rows} == {
        "form-11",
        "form-12",
        "form-13",
    }
    assert len({row["kind"] for row in rows}) == len(KINDS)


def test_a_scene_is_a_pure_function_of_seed_subset_and_index():
    first, again = scenes.scene(3, "test", 7), scenes.scene(3, "test", 7)
    assert np.array_equal(scenes.render(first), scenes.render(again))
    others = [scenes.scene(4, "test", 7), scenes.scene(3, "align", 7), scenes.scene(3, "test", 8)]
    assert all(scenes.render(other).tobytes() != scenes.render(first).tobytes() for other in others)


def test_labels_are_balanced_and_clips_vary():
    drawn = [scenes.scene(0, "calibrate", i) for i in range(90)]
    assert Counter(scene.label for scene in drawn) == {"rising": 30, "falling": 30, "mixed": 30}
    assert {scene.label for scene in drawn[:3]} == set(scenes.LABELS)
    assert len({tuple(scene.label for scene in drawn[n : n + 3]) for n in range(0, 90, 3)}) > 1
    assert len({scene.paper.shape for scene in drawn}) >= 6
    assert len({scene.fps for scene in drawn}) >= 6 and len({scene.crf for scene in drawn}) >= 8
    assert len({scene.digits for scene in drawn}) > 60


def test_every_digit_is_on_screen_in_one_of_the_frames_the_model_sees():
    for index in range(240):
        scene = scenes.scene(1, "test", index)
        assert tiny.FRAMES.shown(scene.frames / scene.fps) == tiny.FRAMES.count
        times = [(i + 0.5) / scene.fps for i in on_screen_indices(scene.frames, tiny.FRAMES.count)]
        for stroke in scene.strokes:
            assert any(stroke.start <= time < stroke.end for time in times), index


def test_difficulty_zero_is_large_and_clean():
    scene = scenes.scene(0, "base", 0, difficulty=0.0)
    assert scene.noise == 0 and scene.blur == 0
    assert all(max(stroke.ink.shape) >= 0.94 * min(scene.paper.shape[:2]) for stroke in scene.strokes)


def test_rendering_some_frames_is_rendering_all_and_choosing():
    scene = scenes.scene(0, "base", 5)
    assert np.array_equal(scenes.render(scene, [0, 9, 4]), scenes.render(scene)[[0, 9, 4]])


def test_real_files_repeat_bit_for_bit_and_decode_back(tmp_path):
    for index in range(4):
        scene = replace(scenes.scene(0, "test", index), crf=18)
        clips.write(scene, tmp_path / "one.mp4")
        clips.write(scene, tmp_path / "two.mp4")
        data = (tmp_path / "one.mp4").read_bytes()
        assert data == (tmp_path / "two.mp4").read_bytes()
        measured = probe(data, Limits())
        height, width, _ = scene.paper.shape
        assert (measured.codec, measured.width, measured.height) == ("h264", width, height)
        assert measured.frames == scene.frames and measured.fps == pytest.approx(scene.fps, rel=0.01)
        decoded, drawn = sample(data, tiny.FRAMES, Limits()), sample_array(scenes.render(scene), scene.fps, tiny.FRAMES)
        assert np.abs(decoded.pixels.astype(float) - drawn.pixels).mean() < 8
        assert decoded.times == pytest.approx(drawn.times, abs=1e-3)


def test_quality_reaches_the_encoder(tmp_path):
    scene = scenes.scene(0, "test", 1)
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
        assert scenes.label_of([int(digit) for digit in row["digits"].split()]) == row["label"]
        assert (tmp_path / row["file"]).exists()
    assert rows[3]["digits"] == " ".join(map(str, scenes.scene(0, "test", 5).digits))
    assert clips.generate(tmp_path, "align", 3, seed=0) == first
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.mp4")} == before
    with (tmp_path / "labels.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == rows


def test_every_trace_parses_to_its_digits_and_label():
    for n, shown in enumerate(product(range(0, 10, 3), repeat=4)):
        text = teacher.trace(shown, seed=n)
        seen, thought, given = TRACE.fullmatch(text).groups()
        assert seen == " ".join(map(str, shown)) and text.startswith(teacher.observation(shown))
        assert given == scenes.label_of(shown) and thought.endswith(f" {given}")
        for left, sign, right in re.findall(r"(\d)([<>=])(\d)", thought):
            assert {"<": left < right, ">": left > right, "=": left == right}[sign]


def test_the_teacher_varies_its_wording_and_repeats_it():
    texts = {teacher.trace((3, 5, 2, 9), seed) for seed in range(40)}
    assert len(texts) == 6  # three closing words, stopping early or not
    assert teacher.trace((3, 5, 2, 9), 1) == teacher.trace((3, 5, 2, 9), 1)
