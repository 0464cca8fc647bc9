"""One of two nightly drivers that run at once on one lake.

    python rival.py LAKE SOURCE

Both have looked at the newest version of a table before either puts its entry down: whoever comes second must collide.
"""

import json
import os
import sys
import time
from pathlib import Path

from benchmarks import null_engine
from conf.settings import load
from jobs import nightly
from jobs.runtime import cli
from lake import commit
from schemas.files import FILES
from schemas.scores import SCORES
from schemas.traces import TRACES
from schemas.videos import VIDEOS

PATIENCE = 60.0  # seconds; a rival that has nothing to publish in a table never comes

put, begin = commit._put, nightly.run


def meet(folder: Path) -> None:
    """Come once, and wait until the other one is there too."""
    folder.mkdir(parents=True, exist_ok=True)
    mine = folder / str(os.getpid())
    if mine.exists():
        return
    mine.touch()
    until = time.monotonic() + PATIENCE
    while len(list(folder.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.05)


def main() -> None:
    root, source = sys.argv[1:]

    def meet_and_put(table, *arguments):
        if table in (FILES, VIDEOS, TRACES, SCORES):
            meet(Path(root).parent / "met" / table.name)
        return put(table, *arguments)

    def ready(run, arguments):
        print("READY", flush=True)
        begin(run, arguments)

    commit._put, nightly.run = meet_and_put, ready
    settings = load("conf/local.yaml", [f"lake.root={root}", f"engine.kind={null_engine.KIND}"])
    print(json.dumps(cli.perform("nightly", settings, quiet=True, source=source).record.counts), flush=True)


if __name__ == "__main__":
    main()
