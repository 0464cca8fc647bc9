"""A lake with an archive of so many videos, as so many nights would have left it, made without a model.

python -m benchmarks.archive build/bench/lakes/1m --videos 1m [--workers 2]

Every night took in 20,000 videos in one wave and rolled out, scored and decided them in two, 4 traces a video; its rows
are in every table that a night writes, each set under the mark of its wave, through the writer and the committer of real
runs. Nights are made by several processes and committed in order. Stopped and called again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from deltalake import WriterProperties

from benchmarks.archive_night import ROLLOUTS, Night, Versions, Written, write_night
from benchmarks.null_engine import KIND
from conf.sections import Settings
from conf.settings import load
from jobs.runtime import cli
from jobs.steps import recipes, scorers
from lake import catalog
from lake.commit import append_once, note_once
from lake.registry import Registry
from lake.table import open_table
from models import identity
from models.calibration import calibrator
from models.calibration.features import FeatureSpec
from models.calibration.linear import LinearCalibrator
from schemas.label_set import LabelSet
from schemas.quality import QUALITY
from schemas.quarantine import QUARANTINE
from schemas.recipes import RECIPES
from schemas.runs import RUNS
from schemas.table import Table
from schemas.tables import BY_NAME, TABLES
from schemas.texts import TEXTS
from schemas.videos import VIDEOS

VIDEOS_A_NIGHT = 20_000
LAST_NIGHT = date(2025, 12, 31)
_COMPACT_EVERY = 30  # nights: `deepintuit maintain` for the side tables
_SIDE_TABLES = (RUNS, QUALITY, QUARANTINE)


def settings_of(root: Path, *overrides: str) -> Settings:
    """The settings of every job on such a lake."""
    return load("conf/local.yaml", list(overrides_of(root)) + list(overrides))


def overrides_of(root: Path) -> tuple[str, ...]:
    return f"lake.root={root}", f"engine.kind={KIND}"


def nights(videos: int, a_night: int = VIDEOS_A_NIGHT) -> list[Night]:
    """The nights of an archive, oldest first; the last is the same day for every size."""
    count = -(-videos // a_night)
    sizes = [min(a_night, videos - n * a_night) for n in range(count)]
    return [Night(n, LAST_NIGHT - timedelta(days=count - 1 - n), size) for n, size in enumerate(sizes)]


def make(
    root: Path, videos: int, workers: int = 2, say: Any = lambda text: None, a_night: int = VIDEOS_A_NIGHT
) -> None:
    """Make the lake, or what is missing of it. a_night: videos of one night."""
    root = root.resolve()
    catalog.create_all(str(root))
    versions = _promote(root)
    runs = open_table(RUNS, str(root))  # of a night that is there in part the marks of its waves tell what is missing
    todo = [night for night in nights(videos, a_night) if runs.transaction_version(f"{night.run_id}/finished") is None]
    began = time.monotonic()
    for index, written in enumerate(_written(root, todo, versions, workers)):
        for part in written:
            append_once(BY_NAME[part.table], str(root), part.files, part.mark, part.wave_id)
        if index % _COMPACT_EVERY == _COMPACT_EVERY - 1:
            _compact(root, _SIDE_TABLES)
        if index % 10 == 9:
            left = (time.monotonic() - began) / (index + 1) * (len(todo) - index - 1)
            say(f"{root}: {index + 1} of {len(todo)} nights, about {left / 60:.0f} minutes left")
    if todo:
        _compact(root, _SIDE_TABLES)
        for table in TABLES:
            open_table(table, str(root)).create_checkpoint()  # as `maintain` does
        videos, texts = (open_table(table, str(root)).version() for table in (VIDEOS, TEXTS))
        Registry(str(root)).note_scored(versions.task, versions.scorer_id, videos, texts)


def _written(root: Path, todo: list[Night], versions: Versions, workers: int) -> Iterator[list[Written]]:
    """The files of each night, in order."""
    if workers == 1 or len(todo) == 1:
        yield from (write_night(str(root), night, versions) for night in todo)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting: list[Any] = []
        for night in todo:
            waiting.append(pool.submit(write_night, str(root), night, versions))
            if len(waiting) > 2 * workers:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def _compact(root: Path, tables: tuple[Table, ...]) -> None:
    for table in tables:
        # The first half of `maintain` alone: its second would take the nights that are written ahead for killed runs.
        open_table(table, str(root)).optimize.compact(writer_properties=WriterProperties(compression="ZSTD"))


def _promote(root: Path) -> Versions:
    """A calibrator with drawn weights, registered and made live by the job `promote`."""
    settings = settings_of(root)
    recipe, labels = recipes.of_settings(settings), tuple(settings.labels.labels)
    spec = FeatureSpec(labels, settings.calibrate.hashed_words)
    size, rng = len(spec.names), np.random.default_rng(0)
    drawn = LinearCalibrator(
        spec, np.zeros(size), np.ones(size), rng.normal(0, 0.1, (len(labels), size)), np.zeros(len(labels))
    )
    manifest = calibrator.manifest(drawn, recipe.id, ROLLOUTS) | {
        "task": settings.task,
        "recipe": recipe.json,
        "model_path": recipe.model_path,
        "adapter_path": recipe.adapter_path,
        "run_id": "calibrate-19700101T000000-000000",
        "created_at": datetime(1970, 1, 1, tzinfo=UTC).isoformat(),
        "worth": None,
    }
    registry = Registry(str(root))
    if not registry.promotions(settings.task):
        registry.save(settings.task, manifest, calibrator.weights(drawn))
        cli.perform("promote", settings, quiet=True, calibrator=manifest["calibrator_id"], force=True)
        row = {
            "recipe_id": recipe.id,
            "task": settings.task,
            "json": identity.canonical(recipe.json),
            "created_at": datetime.now(UTC),
        }
        note_once(RECIPES, str(root), [row], f"recipes/{recipe.id}", "promote-19700101T000000-000000.w00000")
    scorer = scorers.of_manifest(
        manifest, {"threshold": settings.decide.threshold, "coverage": settings.decide.coverage}, LabelSet(labels)
    )
    return Versions(settings.task, labels, recipe.id, scorer.id, scorer.rule_id)


def count(text: str) -> int:
    """10k, 1m or 250: how many videos."""
    factor = {"k": 1000, "m": 1_000_000}.get(text[-1:].lower(), 1)
    digits = text[:-1] if factor > 1 else text
    if not digits.isdigit() or int(digits) == 0:
        raise argparse.ArgumentTypeError(f"expected a number of videos such as 10k or 1m, found {text}")
    return int(digits) * factor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--videos", type=count, required=True)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    make(arguments.root, arguments.videos, arguments.workers, say=lambda text: print(text, file=sys.stderr, flush=True))


if __name__ == "__main__":
    main()
