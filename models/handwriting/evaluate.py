"""Figures of a checkpoint on real clips, with transformers: is it worth keeping?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.handwriting import teacher, tiny
from models.handwriting.rule import LABELS, label_argued, label_of
from models.language import grammar
from models.language.prompts import chat
from models.training.model import load
from models.video.clip import Clip
from models.video.container import Limits
from models.video.frames import sample
from models.video.processors import processor_inputs


@dataclass(frozen=True)
class Figures:
    """Shares in 0..1. `single` and `majority` are of 4 samples at temperature 1; a tie goes to the first seen."""

    clips: int
    observation: float  # greedy: all four digits right
    greedy: float  # greedy: answer right
    single: float
    majority: float
    contradicts: (
        float  # of answered samples whose observation argues for a label: another one; NaN without such samples
    )
    distinct: float  # mean number of different texts among the 4 samples, divided by 4


def evaluate(folder: Path, files: Sequence[Path], digits: Sequence[Sequence[int]], seed: int = 0) -> Figures:
    """Watch real files with a checkpoint and compare with the digits they show."""
    model, processor = load(folder)
    model.eval()
    videos = [sample(path.read_bytes(), tiny.FRAMES, Limits()) for path in files]
    labels = [label_of(shown) for shown in digits]
    torch.manual_seed(seed)
    greedy = [text for (text,) in complete(model, processor, videos, 1, 0.0)]
    sampled = complete(model, processor, videos, 4, 1.0)
    read = [[grammar.parse(text, "observation", LABELS) for text in texts] for texts in sampled]
    answers = [[one.label for one in own] for own in read]
    argued = [(label_argued(one.observation or ""), one.label) for own in read for one in own if one.label]
    return Figures(
        clips=len(files),
        observation=_mean(teacher.observation(d) in text for d, text in zip(digits, greedy, strict=True)),
        greedy=_mean(answer(text) == label for text, label in zip(greedy, labels, strict=True)),
        single=_mean(given == label for four, label in zip(answers, labels, strict=True) for given in four),
        majority=_mean(
            Counter(four).most_common(1)[0][0] == label for four, label in zip(answers, labels, strict=True)
        ),
        contradicts=_mean(seen != said for seen, said in argued if seen),
        distinct=_mean(len(set(texts)) / len(texts) for texts in sampled),
    )


def answer(text: str) -> str | None:
    """The label that a completion answers with, None where it has no usable answer."""
    return grammar.parse(text, "observation", LABELS).label


@torch.no_grad()
def complete(
    model: Any, processor: Any, videos: Sequence[Clip], n: int, temperature: float, batch: int = 32
) -> list[list[str]]:
    """n completions of every video, drawn at a temperature; 0 is greedy.

    Videos of one shape make a batch: their prompts are of one length, so nothing is padded.
    """
    how = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    prompt = chat(processor, tiny.PROMPT)
    texts: dict[int, list[str]] = {}
    for due in _alike([video.pixels.shape for video in videos], batch):
        inputs = processor(text=[prompt] * len(due), **processor_inputs([videos[i] for i in due]), return_tensors="pt")
        tokens = model.generate(**inputs.to(model.device), max_new_tokens=64, num_return_sequences=n, **how)
        spoken = processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        texts |= {video: spoken[place * n : (place + 1) * n] for place, video in enumerate(due)}
    return [texts[i] for i in range(len(videos))]


def _alike(shapes: Sequence[tuple[int, ...]], batch: int) -> Iterator[list[int]]:
    """The numbers of equal shapes, at most `batch` at once."""
    for _, own in groupby(sorted(range(len(shapes)), key=lambda i: shapes[i]), key=lambda i: shapes[i]):
        same = list(own)
        yield from (same[i : i + batch] for i in range(0, len(same), batch))


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return round(float(np.mean(found)), 4) if found else float("nan")
