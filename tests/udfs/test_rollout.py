"""The rollout udf in a real Spark session, with real clips, real decoders and the real vLLM."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from models.engines.asking import seed_of
from models.engines.promise import EngineSpec, Sampling
from models.engines.rollouts import Plan
from models.language.label_scores import Choice
from models.video.frames import FrameSpec
from models.video.pool import DecodeSettings
from udfs.reading import sample_video
from udfs.rollout import TRACE_COLUMNS, rollout

LABELS = ("rising", "falling", "mixed")
STATUSES = {"ok", "parse_error", "too_long", "generation_error", "decode_error"}


def decode_badly(uri, video_id, frames, limits):
    """Runs in the decoder child: one clip crashes it, one hangs it."""
    if uri.endswith("clip03.mp4"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if uri.endswith("clip05.mp4"):
        time.sleep(600)
    return sample_video(uri, video_id, frames, limits)


@pytest.fixture(scope="module")
def plan(checkpoint):
    return Plan(
        engine=EngineSpec("vllm", checkpoint, max_model_len=256, max_num_seqs=64, kv_cache_bytes=256 << 20),
        sampling=Sampling(temperature=1.0, max_tokens=48),
        frames=FrameSpec(count=8, max_pixels=56 * 56, fps=4.0, cell=14),
        user_text="Four digits: rising, falling or mixed?",
        scored=Choice(LABELS),
        grammar="observation",
        decode=sample_video,
        decoding=DecodeSettings(workers=1, timeout_s=5.0),
        rows_per_batch=16,
    )


def video_id(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def run(spark, plan, rows, partitions=1):
    """rows: (video_id, uri, missing, attempt); returns the collected rows."""
    from pyspark.sql.pandas.types import from_arrow_schema

    todo = spark.createDataFrame(rows, "video_id string, uri string, missing array<int>, attempt int")
    beside = ["DATE'2026-01-02' AS ingested_on", "'none' AS input_digest", "CAST(NULL AS STRING) AS input_text"]
    todo = todo.selectExpr("*", *beside)
    out = todo.coalesce(1).repartition(partitions) if partitions > 1 else todo.coalesce(1)
    return out.mapInArrow(rollout(plan), from_arrow_schema(TRACE_COLUMNS)).collect()


def test_importing_the_udf_starts_nothing():
    code = "import sys, udfs.rollout; print({'torch', 'vllm', 'pyspark', 'transformers'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_four_arrow_batches_give_a_row_for_every_missing_rollout(spark, plan, clips):
    rows = [(video_id(c), c, [0, 1, 2, 3], 1) for c in clips[:20]]
    rows += [(video_id(c), c, [7, 2, 3], 2) for c in clips[20:27]]  # two runs of indices, unsorted
    rows += [("ext:a", clips[27], [1], 1), ("ext:none", clips[27], [], 1), ("ext:gone", "/gone.mp4", [4, 0], 3)]
    found = run(spark, plan, rows)
    wanted = {(v, i, attempt) for v, _, missing, attempt in rows for i in missing}
    assert len(found) == len(wanted) == 20 * 4 + 7 * 3 + 3
    assert {(r.video_id, r.rollout_index, r.attempt) for r in found} == wanted
    assert {r.status for r in found} <= STATUSES
    for row in found:
        assert row.seed == seed_of(0, row.video_id, row.rollout_index)
        assert (row.engine, bool(row.engine_version)) == ("vllm", True)
        assert row.ingested_on == date(2026, 1, 2)
        if row.video_id == "ext:gone":
            assert (row.status, row.text, row.tokens) == ("generation_error", None, 0)  # it may come back
            assert row.error.startswith("not_found: ")
        else:
            assert row.tokens > 0 and row.logprob_sum < 0 and row.prompt_tokens > 64
            assert row.finish_reason in ("stop", "length") and row.error is None
            assert (row.label in LABELS) == (row.status == "ok")
            assert row.label_logprobs is None or set(row.label_logprobs) == set(LABELS)


def test_two_more_rollouts_are_the_ones_four_would_have_had(spark, plan, clips):
    four = run(spark, plan, [(video_id(c), c, [0, 1, 2, 3], 1) for c in clips[:6]])
    two = run(spark, plan, [(video_id(c), c, [3, 1], 1) for c in reversed(clips[:6])], partitions=2)
    texts = {(r.video_id, r.rollout_index): (r.text, r.seed) for r in four}
    assert len(two) == 12
    assert all(texts[r.video_id, r.rollout_index] == (r.text, r.seed) for r in two)


class Tag:
    """on_progress that leaves the engine's process id and its count of engines in a file."""

    def __init__(self, path):
        self.path = path

    def __call__(self, videos, tokens):
        from models.engines import vllm

        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {vllm.engines_built} {videos} {tokens}\n")

    def lines(self):
        return [tuple(map(int, line.split())) for line in self.path.read_text(encoding="utf-8").splitlines()]


def test_a_decoder_that_crashes_or_hangs_costs_one_file_and_no_engine(spark, plan, clips, tmp_path):
    tag = Tag(tmp_path / "progress")
    rows = [(video_id(c), c, [0, 1], 1) for c in clips]
    found = run(spark, replace(plan, decode=decode_badly, on_progress=tag), rows)
    errors = {r.video_id: r.error.split(":")[0] for r in found if r.status == "decode_error"}
    assert errors == {video_id(clips[3]): "decoder_crashed", video_id(clips[5]): "decoder_timeout"}
    assert len(found) == 2 * len(clips)
    assert sum(r.status == "decode_error" for r in found) == 4
    lines = tag.lines()
    assert [videos for _, _, videos, _ in lines] == list(range(1, len(clips) + 1))
    assert lines[-1][3] == sum(r.tokens for r in found)
    assert len({(process, engines) for process, engines, _, _ in lines}) == 1  # one process, one engine, to the end
    assert lines[0][1] == 1 and Path(f"/proc/{lines[0][0]}").exists()


class DieOnce:
    """on_progress that makes the engine's next step fail, once in the life of the file."""

    def __init__(self, path):
        self.path = path

    def __call__(self, videos, tokens):
        if not self.path.exists():
            self.path.write_text(str(os.getpid()), encoding="utf-8")
            from models.engines import process

            process._running[2]._engine.step = None


def test_a_dead_engine_ends_its_worker_and_the_task_is_tried_again(spark, plan, clips, tmp_path):
    die = DieOnce(tmp_path / "died")
    rows = [(video_id(c), c, [0, 1, 2], 1) for c in clips]
    found = run(spark, replace(plan, on_progress=die), rows)
    assert {(r.video_id, r.rollout_index) for r in found} == {(video_id(c), i) for c in clips for i in range(3)}
    assert len(found) == 3 * len(clips)
    assert not Path(f"/proc/{die.path.read_text(encoding='utf-8')}").exists()
