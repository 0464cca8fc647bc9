"""The command line: `deepintuit JOB --conf FILE [--set key=value ...] ...`, the same for spark-submit jobs/JOB.py.

The last line on standard output of a job that writes to the lake is one JSON document: the run's id, counts, versions and
results. Exit codes: 0 done (nothing to do is done), 1 crash, 2 wrong usage or configuration, 3 stopped by a data-quality
gate, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from datetime import UTC, datetime
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from jobs.runtime.stop import on_ctrl_c
from models.language.terminal import harmless

if TYPE_CHECKING:
    from conf.sections import Settings
    from jobs.runtime.budget import Budget
    from jobs.runtime.run import Run

JOBS = {
    "demo": "one night end to end on this machine",
    "demo-data": "write the clips of the embedded benchmark",
    "ingest": "take in video files and labels",
    "teach": "take in a teacher's traces of the videos to align on, filtered",
    "align": "cold start: teach the model on teacher traces",
    "refine": "reinforcement learning of the aligned model by its rewards",
    "rollout": "write reasoning traces for videos that lack them",
    "import-traces": "take in traces that other systems wrote",
    "calibrate": "train a calibrator on the traces and register it",
    "promote": "make a calibrator with its recipe and rule live",
    "rollback": "make the versions live that were live before",
    "shadow": "have a candidate score beside the live versions every night",
    "score": "score and decide videos that have their traces",
    "evaluate": "measure the live versions on labelled videos, with intervals",
    "compare": "two recipes or scorers on the same labelled videos",
    "nightly": "score whatever is new with the live versions",
    "backfill": "bring older videos to the live versions, with an estimate first",
    "maintain": "compact tables, remove what nothing names any more",
    "waves": "list, release or discard staged waves",
    "quality": "what the checks of each table found lately, worst first",
    "status": "backlog, waves, refusals, live versions",
    "sql": "query the lake's tables and views",
}


def module_of(job: str) -> ModuleType:
    return importlib.import_module("jobs." + job.replace("-", "_"))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """A mistake is one line here, too."""
        self.exit(2, f"deepintuit: {message}; `{self.prog} --help` tells more\n")


class _DryRun(argparse.Action):
    """A flag; with it no other argument has to be given: what is not written needs no place."""

    def __init__(self, option_strings: list[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, default=False, help=help)

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        setattr(namespace, self.dest, True)
        for action in parser._actions:
            action.required = False


def parser(chosen: str | None) -> argparse.ArgumentParser:
    """All jobs by name, the chosen one with its arguments: only its module is imported, some bring torch with them."""
    top = _Parser(prog="deepintuit", description="Batch scoring of videos on a data lake.")
    jobs = top.add_subparsers(dest="job", required=True, metavar="JOB")
    for job, text in JOBS.items():
        module = module_of(job) if job == chosen else None
        explained = module.__doc__ if module else None
        one = jobs.add_parser(
            job, help=text, description=explained, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if module is None:
            continue
        conf = getattr(module, "CONF", None)
        one.add_argument("--conf", metavar="FILE", default=conf, help="the site's settings, on top of conf/base.yaml")
        one.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
        one.add_argument("--quiet", action="store_true", help="no progress, only the result")
        if getattr(module, "TAKES_BUDGET", True):
            one.add_argument("--max-videos", type=positive, metavar="N", help="take on at most N videos")
            one.add_argument("--deadline", metavar="WHEN", help="start no work that ends later: 90m, 2h or 06:30")
        if hasattr(module, "estimate"):
            from models.footprint.devices import DEVICES

            one.add_argument("--dry-run", action=_DryRun, help="say what it would do, need and take, and do nothing")
            one.add_argument("--device", choices=DEVICES, default="h100", help="for --dry-run (default h100)")
        if getattr(module, "TAKES_MODEL", False):
            one.add_argument(
                "--model", metavar="MODEL", help="folder, or name or id of a registered model: --set model.path=MODEL"
            )
        module.add_arguments(one)
    return top


def positive(text: str) -> int:
    """For arguments that count something."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, found {text}")
    return int(text)


def perform(job: str, settings: Settings, budget: Budget | None = None, quiet: bool = False, **arguments: Any) -> Run:
    """Run a job that writes to the lake, in this process; arguments that are not given have their defaults.

    Returns the finished run. Raises whatever stopped it.
    """
    from jobs.runtime.run import Run

    module = module_of(job)
    bare = argparse.ArgumentParser()
    module.add_arguments(bare)
    defaults = {action.dest: action.default for action in bare._actions if action.dest != "help"}
    with Run(job, settings, budget, quiet) as run:
        module.run(run, argparse.Namespace(**defaults | arguments))
    return run


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    on_ctrl_c()
    try:
        return _run(parser(next((word for word in argv if word in JOBS), None)).parse_args(argv))
    except (Exception, KeyboardInterrupt) as error:
        return _told(error)


def _told(error: BaseException) -> int:
    """Say what stopped the command; its exit code."""
    from jobs.runtime import session
    from jobs.runtime.errors import explain, trace

    message, code = explain(error)
    if isinstance(error, KeyboardInterrupt):
        session.abandon()
    if message.startswith("crashed"):
        print(harmless(trace(error)), file=sys.stderr, end="")
    for line in message.splitlines():
        print(harmless(f"deepintuit: {line}"), file=sys.stderr)
    return code


def _run(arguments: argparse.Namespace) -> int:
    from conf.settings import load
    from jobs.runtime.budget import Budget, parse_deadline
    from jobs.runtime.run import Run

    job = module_of(arguments.job)
    named = [f"model.path={arguments.model}"] if getattr(job, "TAKES_MODEL", False) and arguments.model else []
    arguments.overrides = [*arguments.overrides, *named]
    settings = load(arguments.conf, arguments.overrides)
    deadline = getattr(arguments, "deadline", None)
    budget = Budget(
        getattr(arguments, "max_videos", None), parse_deadline(deadline, datetime.now(UTC)) if deadline else None
    )
    run = Run(arguments.job, settings, budget, arguments.quiet)
    dry = getattr(arguments, "dry_run", False)
    if dry or not getattr(job, "IS_A_RUN", True):
        try:
            (job.estimate if dry else job.run)(run, arguments)
        finally:
            run.drop_scratch()
        return 0
    with run:
        job.run(run, arguments)
    print(run.record.document(), flush=True)
    return 0


def entry() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
