"""The quality of traces inside Spark tasks: one row per video with its traces in, one row per trace out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from models.engines.promise import EngineSpec
from models.language.quality import Trace, load_rule, of_video

QUALITY_COLUMNS = pa.schema(
    [
        ("video_id", pa.string()),
        ("input_digest", pa.string()),
        ("rollout_index", pa.int32()),
        ("attempt", pa.int32()),
        ("judged_by", pa.string()),
        ("implied", pa.string()),
        ("argued", pa.string()),
        ("follows", pa.bool_()),
        ("consistent", pa.bool_()),
        ("observed", pa.bool_()),
        ("tokens", pa.int32()),
        ("repetition", pa.float64()),
        ("surprise", pa.float64()),
        ("doubt", pa.float64()),
        ("dissent", pa.float64()),
        ("ingested_on", pa.date32()),
    ]
)


@dataclass(frozen=True)
class Judge:
    """A model that is asked what a trace's thinking argues for. tails: label -> the turn that asks whether it is this one,
    behind the thinking; codes: for yes and for no."""

    engine: EngineSpec
    tails: Mapping[str, str]
    codes: tuple[str, str]


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
                        | {name: trace[name] for name in ("rollout_index", "attempt", "tokens")}
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
    from models.language.prompts import ARGUED

    engine = open_engine(judge.engine)
    labels, tails = list(judge.tails), tuple(judge.tails.values())
    told: list[list[str | None]] = [[None] * len(traces) for traces in videos]

    def questions() -> Iterator[Question]:
        for number, traces in enumerate(videos):
            for place, trace in enumerate(traces):
                if trace["think"]:
                    prompt = engine.chat(ARGUED, 0, trace["think"])
                    yield Question(f"{number}/{place}", prompt, (), tails)

    for found in engine.classify(questions(), judge.codes):
        number, place = map(int, found.key.split("/"))
        if found.logprobs is not None:
            told[number][place] = labels[int((found.logprobs[:, 0] - found.logprobs[:, 1]).argmax())]
    return told
