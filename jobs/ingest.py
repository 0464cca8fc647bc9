"""ingest: files at a source -> files, videos; labels -> labels, splits, facets; a file with texts -> texts.

deepintuit ingest --source DIR_OR_GLOB_OR_URI [--labels FILE.csv] [--texts FILE.csv] [--split test] --conf conf/local.yaml
deepintuit ingest --source INVENTORY.csv|.parquet --conf conf/prod.yaml

An inventory names the files instead of a listing: a column uri, and etag, size and modified_at where they are known. Where
ingest.labels.folders says what the folders of the source name, labels come from there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.runtime import cli
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import label_files, text_files
from jobs.steps.files import list_files, read_files
from jobs.steps.naming import match
from lake.commit import Landed
from lake.staging import Wave
from lake.waves import Settled, Work
from lake.write import stage
from schemas.facets import FACETS
from schemas.files import FILES
from schemas.imports import IMPORTS
from schemas.labels import LABELS
from schemas.quarantine import QUARANTINE
from schemas.splits import SPLITS, STAGES

_NAMES = 5  # examples in a message


def read_labels(run: Run, path: str, statements: DataFrame) -> None:
    """Publish the statements of a labels file; leaks and contradictions are quarantined and said aloud."""
    settings = run.settings.ingest

    def write(wave: Wave) -> Work:
        matched = match(statements, run.lake.read(FILES), settings.source)
        said = label_files.united(matched, run.labels) if run.label_set.independent else matched
        held = run.lake.view("current_splits")
        staged = [
            stage(wave, LABELS, label_files.label_rows(said, run.task, run.label_set)),
            stage(wave, SPLITS, label_files.split_rows(said, held, run.task)),
        ]
        if settings.labels.facets:
            staged.append(stage(wave, FACETS, label_files.facet_rows(matched, run.task)))
        return staged, {}

    settled = run.waves.make(write, run.record.versions)
    _say(run, Path(path).name, settled)
    if run.label_set.independent:
        more = statements.count() - run.record.counts["label_rows"]
        run.record.add({"labels_united": more})
        if more:
            run.record.say(f"{more} of its rows name a video again: what they say of it is united")


def _told(landed: Landed, refused: int) -> str:
    return f"{landed.rows} new, {landed.known} known, {refused} refused"


def _say(run: Run, name: str, settled: Settled) -> None:
    """What became of the rows of a labels file."""
    labels, splits = settled.landed[LABELS.name], settled.landed[SPLITS.name]
    # What other systems' traces are about needs no bytes.
    known = run.lake.read(IMPORTS).select("video_id")
    unseen = run.lake.read_files(LABELS, labels.files).where(F.col("video_id").startswith("ext:"))
    waiting = unseen.join(known, "video_id", "left_anti")
    counts = {
        "label_rows": labels.rows + labels.known + settled.refused(LABELS),
        "labels_new": labels.rows,
        "labels_without_video": waiting.count(),
        "splits_new": splits.rows,
        "split_leakage": settled.reasons[SPLITS.name].get("split_leakage", 0),
    }
    reasons = Counter[str]()
    for of_table in settled.reasons.values():
        reasons.update(of_table)
    run.record.add(counts | {f"refused_{reason}": count for reason, count in reasons.items()})
    run.record.say(
        f"{name}: {counts['label_rows']} rows: {_told(labels, settled.refused(LABELS))}; splits: "
        f"{_told(splits, settled.refused(SPLITS))}"
    )
    if labels.rows and not splits.rows + splits.known + settled.refused(SPLITS):
        run.record.say(
            f"{name}: no row says which split its video is of, so it is in none: give --split, or name the column of the "
            "stages in ingest.labels.split, letter for letter"
        )
    if counts["labels_without_video"]:
        names = [row["external_id"] for row in waiting.select("external_id").limit(_NAMES).collect()]
        run.record.say(
            f"{counts['labels_without_video']} labels wait for a video of their name: {', '.join(names)} ..."
        )
    if not reasons:
        return
    refused = run.lake.read(QUARANTINE).where(F.col("wave_id") == settled.wave_id)
    for reason, count in sorted(reasons.items()):
        rows = refused.where(F.col("reason") == reason).select("original", "message").limit(_NAMES).collect()
        examples = ", ".join(str(json.loads(row["original"]).get("external_id")) for row in rows)
        run.record.say(
            f"refused as {reason}: {count}, for example {examples}: {rows[0]['message']}; see the table quarantine"
        )


def run(run: Run, arguments: argparse.Namespace) -> None:
    """Files first, so that the labels find them."""
    if arguments.source is None and arguments.labels is None and arguments.texts is None:
        raise UsageError("ingest: give --source, --labels, --texts or several of them")
    ingest, stated = run.settings.ingest, list[tuple[str, DataFrame]]()
    texts = text_files.given(run, arguments.texts)  # mistakes in files are told before hours of reading videos
    if arguments.labels is not None or ingest.labels.folders:
        run.waves.must_be_open(LABELS, SPLITS, FACETS)
    if arguments.labels is not None:
        whole = (run.settings.evaluate.cluster, run.settings.evaluate.observation)
        of_file = label_files.read_statements(
            run.lake.spark, arguments.labels, ingest, run.label_set, arguments.split, whole
        )
        stated.append((arguments.labels, of_file))
    if arguments.source is not None:
        listing = list_files(run, arguments.source)
        if ingest.labels.folders:
            stated.append(("folders", label_files.of_folders(listing, arguments.source, ingest, run.label_set)))
        read_files(run, listing)
    if texts is not None:
        text_files.take_in(run, arguments.texts, texts)
    for name, statements in stated:
        read_labels(run, name, statements)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", help="folder, glob, file or s3:// URI with videos, or an inventory of files")
    parser.add_argument("--labels", help="CSV or TSV with a video and its label a row; columns as in ingest.labels")
    parser.add_argument(
        "--texts", help="CSV or TSV with titles, transcripts, ... of videos; columns as in ingest.texts"
    )
    parser.add_argument("--split", choices=STAGES, help="stage of every row, where the file does not say")


def main() -> int:
    return cli.main(["ingest", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
