"""The document of an estimate: put together, told as a table and as JSON, and an error where the work does not fit."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from conf.settings import origins
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps.estimate.fitting import Change
from jobs.steps.estimate.prompt import ASSUMED, Prompt
from jobs.steps.estimate.table import lines
from models.footprint import serving
from models.footprint.devices import GIB, USABLE, Device, assumptions
from models.footprint.memory import Memory
from models.footprint.serving import Serving
from models.footprint.shape import Shape, shape_of

HOUR = 3600.0


def shape_in(folder: str) -> Shape:
    """The model in a folder. Raises UsageError if there is none."""
    try:
        return shape_of(folder)
    except ValueError as error:
        raise UsageError(str(error)) from None


@dataclass(frozen=True)
class Estimate:
    """What is told. sections: of the settings, those of the job; devices: how many of these it takes; why: no rows could be
    counted; fits: whether `memory` does, and what the engine needs of it; mistakes: what somebody has to change."""

    sections: Sequence[str]
    folder: str
    shape: Shape
    prompt: Prompt
    device: Device
    devices: int
    why: str | None
    rows: Mapping[str, int | None]
    work: Mapping[str, Any]
    tokens: Mapping[str, Any]
    memory: Memory
    fits: bool
    time: Mapping[str, Any]
    mistakes: Sequence[str]


def tell(run: Run, arguments: argparse.Namespace, found: Estimate) -> None:
    """Print the table on standard error, the document as the last line on standard output; raise UsageError for mistakes."""
    chosen = {section: getattr(run.settings, section).model_dump(mode="json") for section in found.sections}
    given = origins(arguments.conf, arguments.overrides)
    document = {
        "job": run.job,
        "dry_run": True,
        "settings": chosen,
        "set_by": {
            f"{section}.{name}": given[f"{section}.{name}"]
            for section, values in chosen.items()
            for name in values
            if f"{section}.{name}" in given
        },
        "model": {"folder": found.folder, "text_counted_by": found.prompt.counted, **asdict(found.shape)},
        "device": {
            "name": found.device.name,
            "count": found.devices,
            "memory_bytes": found.device.memory,
            "bf16_flops": found.device.flops,
            "bytes_per_s": found.device.bandwidth,
        },
        "lake": {"root": run.lake.root, "counted": found.why is None, "why": found.why},
        "rows": dict(found.rows),
        "work": dict(found.work),
        "tokens": {"prompt_video": found.prompt.video, "prompt_text": found.prompt.text, **found.tokens},
        "memory": {
            "phases": found.memory.phases,
            "worst_phase": found.memory.worst,
            "peak_bytes": found.memory.peak,
            "usable_bytes": found.device.usable,
            "fits": found.fits,
        },
        "time": dict(found.time),
        "mistakes": list(found.mistakes),
        "assumed": assumptions() | {"engine_workspace_bytes": serving.WORKSPACE_BYTES} | ASSUMED,
    }
    if not run.record.quiet:
        for line in lines(document):
            print(f"[{run.job}] {line}".rstrip(), file=sys.stderr)
    print(json.dumps(document), flush=True)
    if found.mistakes:
        raise UsageError("\n".join(found.mistakes))


def does_not_fit(
    job: str, shape: Shape, engine: Serving | None, device: Device, memory: Memory, ways: tuple[Sequence[Change], bool]
) -> str:
    """What is wrong, and what to change. engine: the one that is among what `memory` holds; ways: see fitting.that_fit."""
    if memory.peak > device.usable or engine is None:
        wrong = (
            f"{job}: expected at most {device.usable / GIB:.1f} GiB on one {device.name} ({USABLE:g} of its "
            f"{device.memory / GIB:.1f}), found {memory.peak / GIB:.1f} while {memory.worst}"
        )
    else:
        cache = memory.phases[memory.worst][serving.CACHE]
        wrong = (
            f"{job}: expected a KV cache of {serving.longest(shape, engine) / GIB:.2f} GiB on one {device.name}, which one "
            f"sequence of engine.max_model_len={engine.length} takes, found {cache / GIB:.2f}"
        )
    changes, alone = ways
    told = [" with ".join(f"{name}={value}" for name, value in change.items()) for change in changes]
    if not told:
        return f"{wrong}: no change that was tried makes it fit: take a larger --device or a smaller model"
    if alone:
        return f"{wrong}: any of these makes it fit: {'; '.join(told)}"
    return f"{wrong}: these together make it fit: {', '.join(told)}"


def room(prompt: int, new: int, length: int) -> list[str]:
    """The mistake of an engine whose sequences are too short, if it is one. prompt, new: tokens; length: of the engine's."""
    if prompt + new <= length:
        return []
    return [
        f"engine.max_model_len: expected at least {prompt + new}: up to {prompt} tokens of prompt and clip, "
        f"rollout.max_tokens={new}; found {length}: raise it, or lower frames.count, frames.max_pixels or the others"
    ]
