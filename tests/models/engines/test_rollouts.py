"""Rollouts with a scripted engine: seeds, runs of indices, and the count that no row may escape."""

from dataclasses import replace

import numpy as np
import pytest

from models.engines.asking import COLUMNS, Task, seed_of
from models.engines.promise import Completion, EngineSpec, Sampling, refused
from models.engines.rollouts import Plan, Rollouts, consecutive
from models.language.label_scores import Choice
from models.video.clip import Clip
from models.video.container import MediaError
from models.video.frames import FrameSpec
from models.video.pool import DecodeSettings

CONTENT_ID = "0123456789abcdef" * 4


def decode(uri, video_id, frames, limits):
    if uri == "bad":
        raise MediaError("no_frames", "nothing in it")
    return Clip.even(np.zeros((2, 8, 8, 3), np.uint8), 1.0)


PLAN = Plan(
    engine=EngineSpec("scripted", ""),
    sampling=Sampling(),
    frames=FrameSpec(2, 14 * 14, 1.0, cell=14),
    user_text="?",
    scored=Choice(("yes", "no")),
    grammar="think_answer",
    seed_base=10,
    decoding=DecodeSettings(workers=1, timeout_s=20),
    decode=decode,
)


class Scripted:
    """Answers every request at once; `texts` by rollout index."""

    name, version, opens = "scripted", "1", ""

    def __init__(self, texts=None, lose=False):
        self.texts, self.lose, self.asked, self.shown = texts or {}, lose, [], []

    def chat(self, text, clips=1, said="", before=""):
        return "<video>" * clips + text + said + self.opens

    def generate(self, requests, sampling, scored):
        for r in requests:
            self.asked.append((r.key.split(":", 1)[1], r.first_index, r.n, r.seed))
            self.shown.append((r.prompt, len(r.clips)))
            if "refuse" in r.key:
                yield from refused(r, "too long")
                continue
            for index in range(r.first_index, r.first_index + r.n - self.lose):
                text, reason = self.texts.get(index, ("<think>t</think><answer>YES</answer>", "stop"))
                yield Completion(r.key, index, 0, text, (1, 2, 3), -1.5, {"yes": -0.1, "no": -2.0}, 9, reason)


def test_seeds_are_pinned():
    assert [seed_of(5, CONTENT_ID, index) for index in (0, 3)] == [225780121513372, 225780121513375]
    assert seed_of(0, "ext:beef", 1) == 261873897003409


def test_two_bases_share_no_stream():
    """Not even shifted: what one video draws under a base no video draws under another."""
    videos = [f"{video:064x}" for video in range(500)]
    drawn = {seed_of(base, video, index) for base in range(4) for video in videos for index in range(8)}
    assert len(drawn) == 4 * 500 * 8


def test_runs_of_consecutive_indices():
    assert list(consecutive([7, 2, 3, 3, 0])) == [(0, 1), (2, 2), (7, 1)]
    assert list(consecutive([])) == []


def test_each_run_is_one_request_and_every_row_has_every_column():
    engine = Scripted({3: ("<think>t</think><answer>ma", "length"), 7: ("hm", "stop")})
    tasks = [Task(CONTENT_ID, "good", (7, 2, 3, 3), 2), Task("ext:none", "good", (), 1)]
    rows = list(Rollouts(PLAN, engine).rows(tasks))
    assert engine.asked == [
        (CONTENT_ID, 2, 2, seed_of(10, CONTENT_ID, 2)),
        (CONTENT_ID, 7, 1, seed_of(10, CONTENT_ID, 7)),
    ]
    assert all(tuple(row) == tuple(COLUMNS) for row in rows)
    found = {row["rollout_index"]: row for row in rows}
    assert {i: row["status"] for i, row in found.items()} == {2: "ok", 3: "too_long", 7: "parse_error"}
    assert (found[2]["label"], found[2]["answer"], found[2]["well_formed"]) == ("yes", "YES", True)
    assert (found[7]["attempt"], found[7]["tokens"], found[7]["prompt_tokens"]) == (2, 3, 9)
    assert found[7]["seed"] == seed_of(10, CONTENT_ID, 7)


def test_what_the_template_has_opened_and_how_long_the_clip_is_count_for_the_trace():
    engine = Scripted({0: ("t</think><answer>yes</answer>", "stop")})
    (plain,) = Rollouts(PLAN, engine).rows([Task(CONTENT_ID, "good", (0,), 0)])
    engine.opens = "<think>\n"
    (opened,) = Rollouts(PLAN, engine).rows([Task(CONTENT_ID, "good", (0,), 0)])
    assert (plain["well_formed"], opened["well_formed"], opened["think"]) == (False, True, "t")
    assert opened["text"] == "t</think><answer>yes</answer>"  # as it was generated
    timed = "<think><time>0-{}</time><caption>c</caption></think><answer>yes</answer>"
    for end, well_formed in ((2, True), (3, False)):  # the clip has two seconds
        scripted = Scripted({0: (timed.format(end), "stop")})
        (row,) = Rollouts(replace(PLAN, grammar="thinker"), scripted).rows([Task(CONTENT_ID, "good", (0,), 0)])
        assert (row["well_formed"], row["status"]) == (well_formed, "ok")


def test_the_text_beside_a_video_is_in_its_prompt_alone():
    engine, prompts = Scripted(), []

    def chat(text, clips=1, said="", before=""):
        prompts.append(said)
        return text

    engine.chat = chat
    tasks = [Task("ext:a", "good", (0,), 0, "title: cats"), Task("ext:b", "good", (0,), 0)]
    assert len(list(Rollouts(PLAN, engine).rows(tasks))) == 2
    assert sorted(prompts) == ["", "", "title: cats"]


def test_where_no_frames_are_shown_the_prompt_has_no_place_for_them():
    engine = Scripted()
    tasks = [Task(CONTENT_ID, "good", (0,), 0), Task("ext:bad", "bad", (0,), 0)]
    plan = replace(PLAN, frames=replace(PLAN.frames, show="none"))
    rows = {row["video_id"]: row["status"] for row in Rollouts(plan, engine).rows(tasks)}
    assert engine.shown == [("?", 0)]
    assert rows == {CONTENT_ID: "ok", "ext:bad": "decode_error"}  # the same videos as with frames


def test_failures_are_rows_with_a_status_and_progress_counts_them():
    seen = []
    tasks = [Task("ext:bad", "bad", (0, 4), 1), Task("ext:refuse", "good", (1,), 1), Task("ext:good", "good", (0,), 1)]
    plan = replace(PLAN, on_progress=lambda videos, tokens: seen.append((videos, tokens)))
    rows = {(r["video_id"], r["rollout_index"]): r for r in Rollouts(plan, Scripted()).rows(tasks)}
    assert len(rows) == 4
    assert rows["ext:bad", 4]["status"] == "decode_error"
    assert rows["ext:bad", 4]["error"] == "no_frames: nothing in it"
    assert (rows["ext:refuse", 1]["status"], rows["ext:refuse", 1]["error"]) == ("generation_error", "too long")
    assert rows["ext:refuse", 1]["text"] is None and rows["ext:refuse", 1]["logprob_sum"] is None
    assert rows["ext:good", 0]["status"] == "ok"
    assert sorted(v for v, _ in seen) == [1, 2, 3] and seen[-1][1] == 3


def test_a_lost_row_is_an_error():
    with pytest.raises(RuntimeError, match="3 rollouts were asked for and 2 came back"):
        list(Rollouts(PLAN, Scripted(lose=True)).rows([Task("ext:a", "good", (0, 1, 2), 1)]))


def test_a_plan_names_what_is_wrong():
    with pytest.raises(ValueError, match="unknown grammar 'json'"):
        replace(PLAN, grammar="json")
    with pytest.raises(ValueError, match="rows_per_batch"):
        replace(PLAN, rows_per_batch=0)
