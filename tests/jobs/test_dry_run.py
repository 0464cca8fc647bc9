"""--dry-run: what a job would do, need and take, told before anything is started, and with nothing left behind."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support import Lake, last_json
from synthetic import NOW, land, trace, video_id, videos

import models.handwriting
from jobs.runtime import cli, session
from jobs.runtime.run import Run
from jobs.steps import recipes
from lake import commit
from schemas.runs import RUNS

CHECKPOINT = str(Path(models.handwriting.__file__).parent / "checkpoint")
GIB = 1 << 30


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    """config.json of Qwen2.5-VL-7B and nothing beside it."""
    import sys

    sys.path.append(str(Path(__file__).parent.parent / "models" / "footprint"))
    from public import qwen_7b

    return qwen_7b(tmp_path_factory.mktemp("qwen"))


@pytest.fixture
def dry(capsys, monkeypatch):
    """dry(words) -> exit code, document, lines on standard error; of prod.yaml, whose lake is on no store here."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def command(job: str, *words: str, conf: str = "conf/prod.yaml") -> tuple[int, dict, list[str]]:
        capsys.readouterr()
        code = cli.main([job, "--dry-run", "--conf", conf, *words])
        out, err = capsys.readouterr()
        return code, last_json(out) if out else {}, err.splitlines()

    return command


@pytest.fixture
def no_spark(monkeypatch):
    def start(*_):
        raise AssertionError("Spark was started for a lake that is not there")

    monkeypatch.setattr(session, "start", start)


def changes(line: str) -> list[list[str]]:
    """The ways out that an error names, each as words for --set."""
    _, found, ways = line.partition("makes it fit: ")
    if found:
        return [way.split(" with ") for way in ways.split("; ")]
    _, found, ways = line.partition("make it fit: ")
    assert found, line
    return [[word for way in ways.split(", ") for word in way.split(" with ")]]


def setting(words: list[str]) -> list[str]:
    return [part for word in words for part in ("--set", word)]


@pytest.mark.parametrize("stage", ["align", "refine"])
def test_production_trains_qwen_7b_on_eight_h100_and_only_shared_out(stage, dry, qwen, no_spark):
    code, told, lines = dry(stage, "--start", qwen)
    assert code == 0 and told["memory"]["fits"] and told["device"] == told["device"] | {"name": "h100", "count": 8}
    assert told["model"]["parameters"] == 8_292_166_656 and told["model"]["counted_from"] == "its config.json"
    assert told["tokens"]["prompt_video"] == 16 * 256  # 32 frames, two a step, of 448 x 448 in cells of 28 x 28
    assert told["memory"]["peak_bytes"] < told["memory"]["usable_bytes"] < 74 * GIB
    assert told["set_by"][f"{stage}.steps"] == "conf/prod.yaml" and f"{stage}.tau" not in told["set_by"]
    assert all(line.startswith(f"[{stage}]") for line in lines)
    (together,) = (line for line in lines if line.startswith(f"[{stage}]   together"))
    figures = [f"{sum(parts.values()) / GIB:.1f}" for parts in told["memory"]["phases"].values()]
    assert together.split()[2:] == figures and f"{told['memory']['peak_bytes'] / GIB:.1f}" in figures
    assert any(f"{name} {value:,.2f}" in " ".join(lines) for name, value in told["assumed"].items())
    code, told, lines = dry(stage, "--start", qwen, "--set", "training.parallel=ddp")
    assert (
        code == 2
        and not told["memory"]["fits"]
        and told["set_by"]["training.parallel"] == "--set training.parallel=ddp"
    )
    assert lines[-1].startswith(
        f"deepintuit: {stage}: expected at most 73.3 GiB on one h100 (0.92 of its 79.6), found "
    )
    assert ["training.parallel=fsdp", "training.processes=8"] in changes(lines[-1])


def test_what_of_production_s_figures_is_exact(dry, qwen, no_spark):
    _, told, _ = dry("refine", "--start", qwen)
    forward = told["memory"]["phases"]["forward"]
    assert forward["weights"] == forward["gradients"] == 4 * 8_292_166_656 // 8
    assert forward["optimiser"] == 8 * 8_292_166_656 // 8 + 4 * 729
    assert forward["engine: weights"] == 2 * 8_292_166_656 and forward["engine: KV cache"] == 6 * GIB
    assert told["work"] == told["work"] | {"rounds": 625, "videos_drawn": 40_000, "rollouts": 320_000}
    assert told["work"]["rollouts_with_every_refill"] == 3 * 320_000
    assert told["tokens"]["generated_at_most"] == 3 * 320_000 * 2048
    assert told["tokens"]["learned_at_most"] == 320_000 * 2048


def test_without_a_lake_all_but_the_rows_is_told(dry, qwen, no_spark):
    code, told, lines = dry("refine", "--start", qwen)
    assert code == 0 and not told["lake"]["counted"] and told["lake"]["why"]
    assert told["rows"] == {"lessons": None} and told["work"]["epochs"] is None
    assert told["time"]["device_hours"] > 0 and set(told["time"]["by"].values()) == {"arithmetic"}
    assert any("lessons" in line and "unknown" in line for line in lines)
    for job in ("rollout", "nightly"):
        code, told, _ = dry(job, "--set", f"model.path={qwen}")
        assert code == 0 and told["rows"] == {"videos_pending": None, "rollouts_pending": None}, job
        assert told["time"]["device_hours_per_1000_videos"] > 0 and "device_hours" not in told["time"]
    code, told, _ = dry("align", "--start", qwen, conf="conf/local.yaml")
    assert code == 2  # the settings of a machine without a GPU are none for 8 billion parameters
    code, _, (line,) = dry("refine", "--start", "aligned")
    assert code == 2 and "--start aligned: expected a folder, for the lake cannot be asked" in line


def test_a_lake_that_nobody_has_made_is_not_made_either(dry, no_spark, tmp_path):
    for job in ("rollout", "nightly", "align"):
        code, told, _ = dry(job, "--set", f"lake.root={tmp_path / 'lake'}", "--device", "cpu", conf="conf/local.yaml")
        assert code == 0 and told["lake"]["why"] == "no lake there yet: `deepintuit ingest` makes one", job
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ("refine", ["refine.micro_batch=4"]),
        ("refine", ["refine.kv_cache_mb=null"]),
        ("refine", ["refine.kv_cache_mb=512"]),
        (
            "refine",
            ["refine.kv_cache_mb=8192", "refine.micro_batch=8", "training.processes=1", "training.parallel=ddp"],
        ),
        ("align", ["align.micro_batch=64", "training.processes=2"]),
    ],
)
def test_every_change_that_an_error_names_makes_it_fit(job, words, dry, qwen, no_spark):
    given = ["--start", qwen, *setting(words)]
    code, told, lines = dry(job, *given)
    assert code == 2 and not told["memory"]["fits"]
    for way in changes(lines[-1]):
        code, told, _ = dry(job, *given, *setting(way))
        assert code == 0 and told["memory"]["fits"], way


def test_a_small_device_and_a_large_one(dry, qwen, no_spark):
    path = ["--set", f"model.path={qwen}"]
    code, told, _ = dry("rollout", *path, "--device", "h200")
    large = told["memory"]["phases"]["drawing"]["engine: KV cache"]
    assert code == 0 and told["device"]["name"] == "h200" and told["work"]["sequences_at_once"] == 256
    code, told, _ = dry("rollout", *path, "--device", "l40s")
    assert code == 0 and told["memory"]["phases"]["drawing"]["engine: KV cache"] < large
    code, told, lines = dry("rollout", *path, "--device", "l40s", "--set", "engine.max_model_len=600000")
    assert code == 2 and ["engine.gpus=2"] in changes(lines[-1]) and not told["memory"]["fits"]
    assert (
        "expected a KV cache of 32.04 GiB on one l40s, which one sequence of engine.max_model_len=600000" in lines[-1]
    )
    assert told["mistakes"] == [lines[-1].removeprefix("deepintuit: ")]
    assert dry("rollout", *path, "--device", "l40s", *setting(["engine.max_model_len=600000", "engine.gpus=2"]))[0] == 0
    code, told, lines = dry("rollout", *path, "--set", "engine.max_model_len=4096")
    assert code == 2 and lines[-1].startswith("deepintuit: engine.max_model_len: expected at least 61")


def test_a_reference_model_is_counted_for_grpo(dry, qwen, no_spark):
    _, clipped, _ = dry("refine", "--start", qwen)
    _, grpo, _ = dry("refine", "--start", qwen, "--set", "refine.objective=grpo")
    more = grpo["memory"]["phases"]["stepping"]["reference model"]
    assert more == 4 * 8_292_166_656 and "reference model" not in clipped["memory"]["phases"]["stepping"]
    assert grpo["time"]["device_hours_by_part"]["training"] > clipped["time"]["device_hours_by_part"]["training"]
    assert grpo["work"]["rollouts_with_every_refill"] == 320_000  # only `clipped` replaces what teaches nothing


def test_only_jobs_that_can_tell_take_the_flag(capsys):
    for job in cli.JOBS:
        tells = job in ("rollout", "nightly", "align", "refine")
        assert hasattr(cli.module_of(job), "estimate") == tells, job
    with pytest.raises(SystemExit) as done:
        cli.main(["score", "--dry-run"])
    assert done.value.code == 2 and "--dry-run" in capsys.readouterr().err


def test_a_folder_without_a_model_is_told(dry, tmp_path, no_spark):
    code, told, (line,) = dry("refine", "--start", str(tmp_path))
    assert (code, told) == (2, {}) and f"{tmp_path}: expected a folder in Hugging Face layout" in line


@pytest.fixture(scope="module")
def filled(spark, tmp_path_factory):
    """A lake with labelled videos of the splits align and refine, and some traces."""
    lake = Lake(tmp_path_factory.mktemp("dry") / "lake")
    right = {"label": "rising", "labels": ["rising"]}
    names = [f"v{number}" for number in range(6)]
    recipe = recipes.of_settings(lake.settings())
    about = {"task": "handwriting", "source": "s", "observed_at": NOW}
    sure = {"rising": 0.98, "falling": 0.01, "mixed": 0.01}
    land(
        lake,
        **videos(names),
        labels=[{"video_id": video_id(name)} | right | about for name in names],
        splits=[
            {"video_id": video_id(name), "split": "refine" if number < 4 else "align", "task": "handwriting"}
            | {"assigned_at": NOW}
            for number, name in enumerate(names)
        ],
        traces=[trace("v0", "handwriting", recipe.id, index, sure, **right) for index in range(3)],
    )
    lake.recipe = recipe
    return lake


def tree(lake: Lake) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in lake.root.rglob("*") if path.is_file()}


def test_what_a_lake_lacks_is_counted_and_nothing_is_written(filled, dry):
    before, root = tree(filled), ["--set", f"lake.root={filled.root}", "--device", "cpu"]
    code, told, _ = dry("rollout", *root, conf="conf/local.yaml")
    assert code == 0 and told["lake"] == {"root": str(filled.root), "counted": True, "why": None}
    assert told["rows"] == {"videos_pending": 6, "rollouts_pending": 6 * 4 - 3}
    assert (
        told["tokens"]["generated_at_most"] == 21 * 64 and told["model"]["counted_from"] == "the headers of its weights"
    )
    assert told["model"]["text_counted_by"] == "its tokenizer"
    _, told, _ = dry("rollout", *root, "--max-videos", "2", conf="conf/local.yaml")
    assert told["rows"]["videos_pending"] == 2
    _, told, _ = dry("rollout", *root, "--split", "align", conf="conf/local.yaml")
    assert told["rows"] == {"videos_pending": 2, "rollouts_pending": 8}
    words = ["--start", CHECKPOINT, "--set", "refine.micro_batch=8", "--set", "refine.steps=150"]
    code, told, _ = dry("refine", *root, *words, conf="conf/local.yaml")
    assert told["rows"] == {"lessons": 4} and told["work"]["epochs"] == 150 * 16 / 4
    code, told, _ = dry("align", *root, "--direct", conf="conf/local.yaml")
    assert told["rows"] == {"lessons": 2} and told["tokens"]["completion_at_most"] == 9  # <answer>rising</answer>
    code, told, _ = dry("align", *root, conf="conf/local.yaml")
    assert told["rows"] == {"lessons": None} and "expected teacher traces" in told["lake"]["why"]
    code, told, _ = dry("nightly", *root, conf="conf/local.yaml")
    assert code == 0 and "no live versions" in told["lake"]["why"]
    assert tree(filled) == before


def test_what_waves_were_measured_at_is_believed(filled, dry):
    root = ["--set", f"lake.root={filled.root}", "--device", "cpu"]
    run = Run("tests", filled.settings(), quiet=True)
    wave = {"run_id": "r", "event": "wave w", "job": "rollout", "task": "handwriting", "at": datetime.now(UTC)}
    wave |= {
        "seconds": 100.0,
        "versions": [("recipe_id", filled.recipe.id)],
        "counts": [("rollouts", 500), ("tokens", 9000)],
    }
    _, guessed, _ = dry("rollout", *root, conf="conf/local.yaml")
    commit.note_once(RUNS, run.lake.root, [wave], "tests", "tests.w00000")
    _, told, _ = dry("rollout", *root, conf="conf/local.yaml")
    assert guessed["time"]["by"] == {"drawing": "arithmetic"} and told["time"]["by"] == {
        "drawing": "the waves measured last"
    }
    assert told["time"]["hours"] == pytest.approx(21 / 5 / 3600) and told["tokens"]["generated_by_one_rollout"] == 18
    assert told["time"]["device_hours"] == pytest.approx(2 * 21 / 5 / 3600)  # two engines side by side
    words = ["--start", CHECKPOINT, "--set", "refine.micro_batch=8", "--set", "refine.steps=150"]
    _, told, _ = dry("refine", *root, *words, conf="conf/local.yaml")
    assert told["time"]["by"] == {"training": "arithmetic", "drawing": "the waves measured last"}
    assert told["time"]["device_hours_by_part"]["drawing"] == pytest.approx(150 * 128 / (5 / 2) / 3600)


def test_a_folder_without_weights_has_no_recipe_and_everything_else(filled, dry, tmp_path):
    shutil.copy(Path(CHECKPOINT) / "config.json", tmp_path)
    root = ["--set", f"lake.root={filled.root}", "--set", f"model.path={tmp_path}", "--device", "cpu"]
    code, told, _ = dry("rollout", *root, conf="conf/local.yaml")
    assert code == 0 and told["rows"]["videos_pending"] is None and "no *.safetensors" in told["lake"]["why"]
    assert "3 characters a token" in told["model"]["text_counted_by"]


def test_quiet_leaves_the_document_alone(dry, qwen, no_spark, capsys):
    code, told, lines = dry("align", "--start", qwen, "--quiet")
    assert code == 0 and lines == [] and json.dumps(told)
