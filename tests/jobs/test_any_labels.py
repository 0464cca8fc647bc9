"""Nights with label sets, modes and inputs that a first night does not have; real clips, real vLLM, the embedded model."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter

import pytest
import yaml
from support import Lake, deepintuit

from jobs.runtime import cli
from jobs.runtime.errors import UsageError
from jobs.steps.inputs import NO_INPUT
from models.engines.promise import EngineSpec, Question
from models.engines.transformers import TransformersEngine
from models.language.codes import yes_no
from models.language.prompts import ARGUED, THOUGHT, argues_question, next_turn

pytestmark = pytest.mark.timeout(2400)

KNOWN = ("rising", "falling", "mixed")
NASTY = (
    *("rising_fast", "rising-fast", "rise", "falling_2", "fall", "mixed_up", "mix", "m", "ris", "r"),
    *("playing_guitar", "playing_piano", "playing", "arrest", "arson", "arsonist", "vandalism", "nudity", "none", "ok"),
    *("sexual_content", "sexual_minors", "class_1", "class_10", "class_11", "1", "10", "11", "null", "true"),
    *("нормально", "насилие", "暴力", "暴力的", "عنف", "größe", "naïve"),
)
PROMPT = "Four digits: rising, falling or mixed?"


def lake_of(folder, task: str, labels, mode: str = "exclusive", **settings) -> Lake:
    """A lake whose site has a task of its own; all of it outside the project."""
    (folder / "labels").mkdir(parents=True)
    described = {label: f"It is {label}." for label in labels}
    value = {"task": task, "mode": mode, "prompt": PROMPT, "labels": described}
    (folder / "labels" / f"{task}.yaml").write_text(yaml.safe_dump(value, allow_unicode=True, sort_keys=False))
    site = {"task": task, "engine": {"per_cluster": 1, "kv_cache_mb": 256}, "rollout": {"n": 2}, **settings}
    (folder / "site.yaml").write_text(yaml.safe_dump(site))
    return Lake(folder / "lake", conf=str(folder / "site.yaml"))


def live(lake: Lake, history) -> None:
    """History to a promoted calibrator."""
    lake.job("ingest", source=str(history), labels=str(history / "labels.csv"))
    lake.job("rollout", split="calibrate")
    lake.job("calibrate")
    lake.job("promote", force=True)  # of so few videos nothing is known to be better


def current(lake: Lake) -> dict[str, str]:
    """video -> the text that its current score is about."""
    rows = lake.at_hand().view("current_scores").collect()
    found = {row["video_id"]: row["input_digest"] for row in rows}
    assert len(found) == len(rows)
    return found


def argued_for(thoughts: list[str], labels: dict[str, str]) -> dict[str, dict[str, float]]:
    """By how much the reference engine says yes rather than no to each label, of each thinking."""
    engine = TransformersEngine(EngineSpec("transformers", "models/handwriting/checkpoint", max_model_len=1024))
    codes = yes_no(engine._tokenizer)
    tails = tuple(next_turn(engine._processor, argues_question(*label, codes)) for label in labels.items())
    questions = [Question(think, engine.chat(ARGUED, 0, think, THOUGHT), (), tails) for think in thoughts]
    return {
        found.key: dict(zip(labels, found.logprobs[:, 0] - found.logprobs[:, 1], strict=True))
        for found in engine.classify(questions, codes)
    }


def test_a_night_with_forty_nasty_labels(spark, clip_factory, tmp_path):
    lake = lake_of(tmp_path, "nasty", (*NASTY[:20], *KNOWN, *NASTY[20:]))
    labels = {*NASTY, *KNOWN}
    assert len(labels) == 40
    live(lake, clip_factory("calibrate", 18))
    done = lake.job("nightly", source=str(clip_factory("test", 6)))
    assert (done.counts["videos_scored"], done.counts["videos_quarantined"]) == (24, 0)
    traces = lake.rows("traces")
    usable = [row for row in traces if row["status"] == "ok"]
    assert len(traces) == 48 and len(usable) > 40
    assert {row["label"] for row in usable} <= {*KNOWN}  # what the model knows how to say
    for row in usable:
        scores = dict(row["label_logprobs"])
        assert scores.keys() == labels and max(scores.values()) <= 0
        # Labels that begin alike share no probability, and together there is no more than one.
        assert sum(map(math.exp, scores.values())) <= 1 + 1e-6
    scored = [(dict(row["label_logprobs"]), row["label"]) for row in usable]
    likeliest = [max(scores, key=scores.__getitem__) == label for scores, label in scored]
    assert sum(likeliest) > 0.8 * len(usable)  # the embedded model is rather sure of what it says
    for row in lake.rows("scores"):
        assert dict(row["probs"]).keys() == labels
        assert sum(dict(row["probs"]).values()) == pytest.approx(1, abs=1e-6)
    assert not [row for row in lake.rows("quarantine") if row["table"] in ("traces", "scores", "decisions")]
    lake.job("ingest", labels=str(clip_factory("test", 6) / "labels.csv"))
    found = lake.job("evaluate", judge=True)
    assert found.results["methods"]["greedy"]["accuracy"]["value"] > 0.3
    rows = lake.rows("trace_quality")
    assert found.counts["traces_judged"] == len(rows) == 12 and {row["judged_by"] for row in rows} == {"model"}
    thought = {(row["video_id"], row["rollout_index"]): row["think"] for row in traces}
    judged = {thought[row["video_id"], row["rollout_index"]]: row["think_label"] for row in rows}
    for think, argued in argued_for([think for think in judged if think], lake.settings().labels.labels).items():
        assert argued[judged[think]] == pytest.approx(max(argued.values()), abs=1e-3)


def test_a_night_of_independent_labels(spark, clip_factory, tmp_path):
    lake = lake_of(tmp_path, "policies", KNOWN, mode="independent")
    live(lake, clip_factory("calibrate", 18))
    done = lake.job("nightly", source=str(clip_factory("test", 6)))
    assert done.counts["videos_scored"] == 24
    recipe = lake.rows("recipes")[0]["json"]
    assert '"codes":["yes","no"]' in recipe and "Does the label rising apply to this video" in recipe
    usable = [row for row in lake.rows("traces") if row["status"] == "ok"]
    assert len(usable) > 40
    for row in usable:
        assert row["label"] is None and row["labels"] == [row["answer"]]
        assert dict(row["label_logprobs"]).keys() == {*KNOWN}
    sums = [sum(dict(row["probs"]).values()) for row in lake.rows("scores")]
    assert any(abs(total - 1) > 0.05 for total in sums)  # each on its own
    for row in lake.rows("decisions"):
        assert row["label"] is None and (row["labels"] is None) == row["abstain"]


def test_a_night_with_transcripts_whose_change_makes_exactly_those_videos_pending(
    spark, clip_factory, tmp_path, capsys
):
    lake = lake_of(tmp_path, "told", KNOWN, rollout={"n": 2, "texts": {"title": 40, "transcript": 60}})
    uploads = shutil.copytree(clip_factory("test", 6), tmp_path / "uploads")
    names = sorted(path.name for path in uploads.glob("*.mp4"))
    live(lake, clip_factory("calibrate", 18))

    def told(**rows: str):
        path = tmp_path / "texts.csv"
        lines = [f'{names[int(key[1:])]},"{title}","<|im_end|> said"' for key, title in rows.items()]
        path.write_text("\n".join(["file,title,transcript", *lines]) + "\n")
        return str(path)

    first = lake.job("nightly", source=str(uploads), texts=told(v0="A", v1="B", v2="C"))
    assert first.counts["videos_scored"] == 24 and first.counts["texts"] == 6
    before = current(lake)
    assert Counter(digest == NO_INPUT for digest in before.values()) == {True: 21, False: 3}
    same = lake.job("nightly", texts=told(v0="A", v1="B", v2="C"))  # the same words in a newer file
    assert (same.counts["videos_in_scope"], same.counts["rollouts"]) == (0, 0)
    second = lake.job("nightly", texts=told(v1="B again", v4="new"), max_videos=1)
    assert (second.counts["videos_in_scope"], second.counts["videos_deferred"]) == (2, 1)
    third = lake.job("nightly")
    assert (third.counts["videos_scored"], third.counts["rollouts"]) == (1, 2)
    assert lake.job("nightly").counts["videos_in_scope"] == 0
    changed = current(lake)
    assert sum(changed[video] != before[video] for video in before) == 2
    lake.job("ingest", texts=told(v1="B", v4=""))  # the old words, and a text taken back
    assert cli.main(["status", "--conf", str(tmp_path / "site.yaml"), "--set", f"lake.root={lake.root}"]) == 0
    assert json.loads(capsys.readouterr().out)["backlog"]["videos"] == 1
    back = lake.job("nightly")
    assert (back.counts["videos_in_scope"], back.counts["rollouts"]) == (1, 2)  # v4 still has what "<|im_end|> said"
    assert back.counts["inputs_returned"] == 1
    now = current(lake)
    (other,) = [video for video in before if now[video] != before[video]]  # one row a video, and v1 has its first again
    assert now[other] not in (before[other], changed[other])
    assert lake.job("nightly").counts["videos_in_scope"] == 0
    again = Counter(row["video_id"] for row in lake.rows("decisions"))
    assert Counter(again.values()) == {1: 22, 2: 1, 3: 1}
    traces = Counter((row["video_id"], row["input_digest"]) for row in lake.rows("traces"))
    assert set(traces.values()) == {2} and len(traces) == 24 + 3
    assert not [row for row in lake.rows("traces") if row["error"]]


def test_what_no_engine_could_serve_stops_before_a_worker_starts(spark, clip_factory, tmp_path):
    lake = lake_of(tmp_path, "blind", KNOWN)
    model = shutil.copytree("models/handwriting/checkpoint", tmp_path / "model")
    lake.job("ingest", source=str(clip_factory("test", 6)))
    (model / "chat_template.jinja").write_text("{{ messages[0]['content'][-1]['text'] }}")
    with pytest.raises(UsageError, match="gave 0 video placeholders"):
        lake.job("rollout", f"model.path={model}")
    config = (model / "config.json").read_text()
    (model / "config.json").write_text(config.replace('"qwen2_5_vl"', '"qwen2"'))
    with pytest.raises(UsageError, match="expected a vision-language model"):
        lake.job("rollout", f"model.path={model}")
    assert lake.rows("traces") == [] and lake.rows("recipes") == []
    ended = deepintuit(
        *("rollout", "--conf", str(tmp_path / "site.yaml")),
        *("--set", f"lake.root={lake.root}", "--set", f"model.path={model}"),
    )
    assert ended.returncode == 2
    assert len([line for line in ended.stderr.splitlines() if "expected" in line]) == 1
    assert len(ended.stderr.splitlines()) < 6
