"""Given the kept results of `make bench`, then they are of what is in the tree, and docs/results.md is made of them."""

from __future__ import annotations

import json

from benchmarks import handwriting
from conf.sections import CONF
from conf.settings import load
from models.identity import digest


def kept() -> dict:
    return json.loads(handwriting.RESULTS.read_text())


def test_the_results_are_those_of_what_is_in_the_tree():
    inputs = handwriting.inputs(load(str(CONF / "handwriting.yaml")))
    changed = [name for name, value in inputs.items() if value != kept()["inputs"].get(name)]
    assert not changed and kept()["digest"] == digest(inputs), (
        f"{changed} changed: run `make bench` and keep what it writes"
    )


def test_the_document_says_what_was_measured():
    assert handwriting.DOCUMENT.read_text() == handwriting.document(kept())


def test_the_readme_quotes_them():
    said, methods = (handwriting.PROJECT / "README.md").read_text(), kept()["found"]["results"]["methods"]
    rows = {
        "greedy": "greedy",
        "greedy, one temperature": "greedy (tempered)",
        "one sample, one temperature": "single (tempered)",
        "vote of K, one temperature": "vote",
        "light calibrator (`linear`)": "linear",
    }
    for name, method in rows.items():
        figures = methods[method]
        ends = {key: "{value:.3f} [{low:.3f}, {high:.3f}]".format(**figures[key]) for key in ("accuracy", "nll")}
        assert f"| {name} | {ends['accuracy']} | {ends['nll']} | {figures['ece']['value']:.3f} |" in said


def test_a_bench_that_was_stopped_goes_on_behind_its_last_step(tmp_path):
    def make(out, count, seed):
        made.append((out, count, seed))

    made = []
    for _ in range(2):
        steps = handwriting.Steps(tmp_path, load(None))
        steps.data("clips", make, tmp_path / "data", 6)
    assert made == [(tmp_path / "data", 6, handwriting.SEED)] and steps.done["clips"].keys() == {"seconds"}
