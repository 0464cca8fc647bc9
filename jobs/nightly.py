"""nightly: whatever is new, with the live versions: ingest -> rollout -> score -> decide. Never trains.

    deepintuit nightly --source DIR_OR_GLOB_OR_URI --conf conf/local.yaml [--max-videos N] [--deadline 06:00]

New is what no live versions of this task have decided yet, and what the live ones decided with another text beside it;
`backfill` brings older videos to newly promoted versions. Without --source it takes on what is in the lake already. A night
notes how far it came and the days of what it left, and the next looks only at what came after and at those days. A second
run right after starts no engine.
"""

from __future__ import annotations

import argparse
import sys
from datetime import date

from jobs.runtime import cli
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import scorers, shadowing, text_files
from jobs.steps.estimate import serving
from jobs.steps.files import fresh_files, list_files, read_files
from jobs.steps.news import news, note_returned
from jobs.steps.serving import serve
from schemas.files import FILES


def run(run: Run, arguments: argparse.Namespace) -> None:
    scorer = scorers.live(run)
    if scorer.recipe.imported:
        raise UsageError(
            f"nightly: the live calibrator reads traces of {scorer.recipe.json['by']}, and no model here writes more of "
            "them: `deepintuit import-traces` and `score` take in and score what it wrote, or promote another one"
        )
    texts = text_files.given(run, arguments.texts)
    if arguments.source is not None:
        read_files(run, list_files(run, arguments.source))
    if texts is not None:
        text_files.take_in(run, arguments.texts, texts)
    found = news(run, scorer)
    if found.returned is not None:
        note_returned(run, scorer.recipe, found.returned)
    owed = shadowing.owe(run, found.scope)  # before the first of them is decided: the next night would not look at it
    if found.scope is None or not found.scope.count:
        run.record.versions |= scorer.versions
        run.record.add(dict.fromkeys(("videos_in_scope", "videos_scored", "rollouts", "engines"), 0))
        run.record.say("nothing is new: every video in the lake has its decision; no engine was started")
        left: tuple[date, ...] = ()
    else:
        left = serve(run, scorer, found.scope).days
    days = [day.isoformat() for day in left]
    run.lake.registry.note_scored(run.task, scorer.id, found.videos_version, found.texts_version, days)
    if owed or (found.scope is not None and found.scope.count):  # after what the next night begins from is noted
        shadowing.follow(run, scorer, found.scope, owed)


def estimate(run: Run, arguments: argparse.Namespace) -> None:
    """--dry-run: of what is in the lake, and of files at --source that no ingest has read."""

    def ask() -> serving.Asked:
        scorer = scorers.live(run)
        files = None
        if arguments.source is not None:
            files = fresh_files(list_files(run, arguments.source), run.lake.read(FILES)).count()
        return serving.Asked(scorer.recipe, scorer.rollouts, news(run, scorer).scope, files)

    serving.estimate(run, arguments, ask)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", help="folder, glob, file or s3:// URI with new videos, or an inventory of files")
    parser.add_argument(
        "--texts", help="CSV or TSV with titles, transcripts, ... of videos; columns as in ingest.texts"
    )


def main() -> int:
    return cli.main(["nightly", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
