"""The quality of traces inside Spark tasks: one row per video with its traces in, one row per trace out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from models.engines.promise import EngineSpec
from models.language.rule import load_rule
from models.language.trace_quality import Trace, of_video
from udfs.device import claim_device

QUALITY_COLUMNS = pa.schema(
    [
        ("video_id", pa.string()),
        ("input_digest", pa.string()),
        ("rollout_index", pa.int32()),
        ("attempt", pa.int32()),
        ("judged_by", pa.string()),
        ("observation_label", pa.string()),
        ("think_label", pa.string()),
        ("follows_observation", pa.bool_()),
        ("follows_think", pa.bool_()),
        ("observation_right", pa.bool_()),
        ("repetition", pa.float64()),
        ("token_nll", pa.float64()),
        ("label_entropy", pa.float64()),
        ("sibling_disagreement", pa.float64()),
        ("ingested_on", pa.date32()),
    ]
)


@dataclass(frozen=True)
class Judge:
    """A model that is asked what a trace's thinking argues for. tails: label -> the turn that asks whether it is this one,
    behind the thinking; codes: for yes and for no; adapter: as the traces were made with."""

    engine: EngineSpec
    tails: Mapping[str, str]
    codes: tuple[str, str]
    adapter: str = ""


def judge_traces(
    rule: str | None, judge: Judge | None
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For mapInArrow: video_id, input_digest, ingested_on, observation, traces in; QUALITY_COLUMNS out.

    rule: the task's, as module:function; judge: who is asked where there is none.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        told = load_rule(rule) if rule else None
        for batch in batches:
            rows = batch.to_pylist()
            argued = ask(judge, [row["traces"] for row in rows]) if judge and rows else [None] * len(rows)
            made: list[dict[str, Any]] = []
            for row, own in zip(rows, argued, strict=True):
                found = of_video(row["traces"], told, row["observation"], own)
                for trace, quality in zip(row["traces"], found, strict=True):
                    made.append(
                        {name: row[name] for name in ("video_id", "input_digest", "ingested_on")}
                        | {name: trace[name] for name in ("rollout_index", "attempt")}
                        | {"judged_by": "rule" if told else "model" if judge else "nobody"}
                        | asdict(quality)
                    )
            yield pa.RecordBatch.from_pylist(made, QUALITY_COLUMNS)

    return run


def ask(judge: Judge, videos: list[list[Trace]]) -> list[list[str | None]]:
    """What each trace of each video argues for, by the model: the label for which yes is most probable, None without any
    thinking."""
    from models.engines.process import open_engine
    from models.engines.promise import Question
    from models.language.prompts import ARGUED, THOUGHT

    claim_device()
    engine = open_engine(judge.engine)
    labels, tails = list(judge.tails), tuple(judge.tails.values())
    told: list[list[str | None]] = [[None] * len(traces) for traces in videos]

    def questions() -> Iterator[Question]:
        for number, traces in enumerate(videos):
            for place, trace in enumerate(traces):
                if trace["think"]:
                    prompt = engine.chat(ARGUED, 0, trace["think"], THOUGHT)
                    yield Question(f"{number}/{place}", prompt, (), tails, judge.adapter)

    for found in engine.classify(questions(), judge.codes):
        number, place = map(int, found.key.split("/"))
        if found.logprobs is not None:
            told[number][place] = labels[int((found.logprobs[:, 0] - found.logprobs[:, 1]).argmax())]
    return told
