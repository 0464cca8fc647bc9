"""One of two nightly drivers that run at once on one lake.

    python rival.py LAKE SOURCE

Looks at the counter of a compare-and-set, then dawdles before it appends: that is where the other one gets in between.
"""

import argparse
import json
import sys
import time

from conf.settings import load
from jobs import nightly
from jobs.run import Run
from schemas import table

look = table.transaction_version


def look_and_dawdle(path: str, scope: str) -> int:
    version = look(path, scope)
    if scope.startswith(("traces/", "scores/", "files", "videos")):
        time.sleep(3.0)
    return version


def main() -> None:
    root, source = sys.argv[1:]
    table.transaction_version = look_and_dawdle
    settings = load("conf/local.yaml", [f"lake.root={root}", "engine.per_cluster=1", "engine.kv_cache_mb=64"])
    with Run("nightly", settings, quiet=True) as run:
        print("READY", flush=True)
        nightly.run(run, argparse.Namespace(source=source))
    print(json.dumps(run.counts), flush=True)


if __name__ == "__main__":
    main()
