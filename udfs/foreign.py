"""Rows of other systems' files, read inside Spark tasks: one trace for each text that a row holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from models.language import grammar
from models.language.loose import Names, Where, at
from udfs.imported import READ_COLUMNS

FOREIGN_COLUMNS = pa.schema(
    [
        ("row", pa.int64()),
        ("external_id", pa.string()),
        ("prompt", pa.string()),
        ("text", pa.string()),
        *READ_COLUMNS,
        ("refused_reason", pa.string()),
        ("refused_message", pa.string()),
    ]
)
_LONGEST = 1 << 20  # characters of a trace


@dataclass(frozen=True)
class Mapped:
    """Where in a row things are: see `loose.Where`. id: of the video; texts: fields, each of which is a trace; prompt: what
    else tells traces of one video apart; answer: None where the task's own grammar reads it; think: the reasoning."""

    id: str
    texts: tuple[str, ...]
    prompt: str | None = None
    answer: Where | None = None
    think: Where | None = None


def read_foreign(
    mapped: Mapped, names: Names, kind: str
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For mapInArrow: row (its number), line (JSON; NULL: no UTF-8) in; FOREIGN_COLUMNS out, for each row as many as there
    are texts.

    kind: the grammar of traces without `answer`. A row that is no JSON, or without an id, is one row with refused_reason.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = [made for row in batch.to_pylist() for made in _traces(row["row"], row["line"], mapped, names, kind)]
            yield pa.RecordBatch.from_pylist(rows, FOREIGN_COLUMNS)

    return run


def _traces(number: int, line: str | None, mapped: Mapped, names: Names, kind: str) -> Iterator[dict[str, Any]]:
    blank = dict.fromkeys(FOREIGN_COLUMNS.names) | {"row": number}
    if line is None:
        yield blank | {"refused_reason": "broken_row", "refused_message": "expected a row in UTF-8, found other bytes"}
        return
    try:
        row = json.loads(line, strict=False)
    except (ValueError, RecursionError) as error:
        yield blank | {"refused_reason": "broken_row", "refused_message": f"expected a row of JSON, found {error}"}
        return
    name = at(row, mapped.id) if isinstance(row, Mapping) else None
    if name is None or not str(name).strip():
        yield blank | {"refused_reason": "no_id", "refused_message": f"expected the id of a video in {mapped.id}"}
        return
    also = at(row, mapped.prompt) if mapped.prompt else None
    for field in mapped.texts:
        told = [*([field] if len(mapped.texts) > 1 else []), *([_text(also)] if also is not None else [])]
        prompt = "/".join(part for part in told if part)
        yield (
            blank
            | {"external_id": _text(str(name)), "prompt": prompt}
            | _read(row, at(row, field), mapped, names, kind)
        )


def _read(row: Mapping[str, Any], value: Any, mapped: Mapped, names: Names, kind: str) -> dict[str, Any]:
    """What a text says, as columns of a trace."""
    text = _text(value)
    think = _text(mapped.think.of(row, text)) if mapped.think else None
    if mapped.answer is None:
        found = grammar.parse(text or "", kind, names.labels, several=names.several)
        known = {name: getattr(found, name) for name in READ_COLUMNS.names}
        return known | {"text": text, "think": think or found.think}
    answer = mapped.answer.of(row, text)
    labels = names.read(answer)
    return {
        "text": text,
        "think": think,
        "answer": _text(answer),
        "labels": labels,
        "label": labels[0] if labels and not names.several else None,
        "status": "parse_error" if labels is None else "ok",
        "well_formed": labels is not None,
    }


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text[:_LONGEST].encode("utf-8", "replace").decode()  # half an emoji, where an output was cut, is no text
