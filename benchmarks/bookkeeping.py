"""What a night costs beside its model, on lakes of different sizes: seconds, table bytes read, memory, Spark jobs.

python -m benchmarks.bookkeeping [--sizes 10k,100k,1m,10m] [--folder build/bench]

Lakes come from benchmarks/archive.py (made once, kept in FOLDER/lakes); every size is measured on a copy of its lake made
of links. Each measurement is one `deepintuit` command in a fresh process, with benchmarks/null_engine.py in the place of
the model (see benchmarks/meters.py for what is counted). Prints Markdown tables; FOLDER/bookkeeping.json has all figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median

from benchmarks import archive, meters
from models.handwriting import clips

NEW_VIDEOS, NEW_FILES, QUIET_NIGHTS = 100, 10_000, 3
_CLIPS = 20  # that are really encoded; what is new differs from one of them by a box that players skip

# measurement, its figure, up to which size, at most so many times that of the smallest lake
TARGETS = (
    ("nightly, nothing new", "seconds", 10_000_000, 1.5),
    ("nightly, 100 new", "seconds", 10_000_000, 2.0),
    ("ingest, 10,000 new files", "seconds", 1_000_000, 1.3),
    ("nightly, nothing new", "cpu_seconds", 10_000_000, 1.5),
    ("nightly, 100 new", "cpu_seconds", 10_000_000, 2.0),
    ("ingest, 10,000 new files", "cpu_seconds", 1_000_000, 1.3),
    ("nightly, nothing new", "driver_mb", 10_000_000, 1.1),
    ("nightly, 100 new", "driver_mb", 10_000_000, 1.1),
    ("nightly, 100 new", "jvm_mb", 10_000_000, 1.1),
)
_UNITS = {
    "seconds": "seconds of the job",
    "cpu_seconds": "seconds of CPU",
    "driver_mb": "memory of the driver",
    "jvm_mb": "memory of the JVM",
}


def new_files(folder: Path, count: int) -> Path:
    """A folder with so many videos of different contents, quickly made; kept for the next time."""
    if folder.is_dir() and len(list(folder.iterdir())) == count:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    made = [path.read_bytes() for path in clips.generate(folder.parent / "clips", "test", _CLIPS, seed=0)]
    folder.mkdir(parents=True)
    for number in range(count):
        name = f"{folder.name}-{number:06d}".encode()
        box = (8 + len(name)).to_bytes(4, "big") + b"free" + name
        (folder / f"{name.decode()}.mp4").write_bytes(made[number % len(made)] + box)
    return folder


def copy(lake: Path, to: Path) -> Path:
    """The same lake once more: files are never changed in place, so links will do."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(lake, to, copy_function=os.link)
    return to


@dataclass(frozen=True)
class Measured:
    """One command in a process of its own; seconds: of the job, whole_seconds: of the process."""

    seconds: float
    whole_seconds: float
    cpu_seconds: float
    read_mb: float
    logs_mb: float
    driver_mb: float
    jvm_mb: float
    spark_jobs: int
    cost: meters.Cost


def measured(process: meters.Process) -> Measured:
    (cost,) = process.costs
    logs = sum(count for table, count in cost.read.items() if table.endswith("_delta_log"))
    return Measured(
        seconds=cost.seconds,
        whole_seconds=process.seconds,
        cpu_seconds=process.cpu_seconds,
        read_mb=cost.bytes_read / 1e6,
        logs_mb=logs / 1e6,
        driver_mb=cost.driver_mb,
        jvm_mb=cost.jvm_mb,
        spark_jobs=cost.spark_jobs,
        cost=cost,
    )


def measure(lake: Path, folder: Path) -> Iterator[tuple[str, Measured]]:
    """Every measurement on one lake, in an order in which none spoils the next."""
    settings = [word for value in archive.overrides_of(lake) for word in ("--set", value)]

    def run(*arguments: str) -> Measured:
        return measured(meters.run(lake.parent, [[*arguments, "--conf", "conf/local.yaml", *settings]]))

    for _ in range(QUIET_NIGHTS):
        yield "nightly, nothing new", run("nightly")
    yield "status", run("status")
    yield "nightly, 100 new", run("nightly", "--source", str(new_files(folder / "new" / "night", NEW_VIDEOS)))
    run("promote", "--set", "decide.threshold=0.7")  # a rule that has decided nothing yet
    week = archive.LAST_NIGHT - timedelta(days=6)
    yield "backfill estimate, a week", run("backfill", "--since", str(week), "--until", str(archive.LAST_NIGHT))
    yield "backfill estimate, all", run("backfill", "--until", str(archive.LAST_NIGHT))
    yield "ingest, 10,000 new files", run("ingest", "--source", str(new_files(folder / "new" / "many", NEW_FILES)))


Figures = dict[str, dict[str, list[Measured]]]  # by size, by measurement


_COLUMNS = {
    "s": "seconds",
    "s, process": "whole_seconds",
    "s, CPU": "cpu_seconds",
    "table MB read": "read_mb",
    "of it logs": "logs_mb",
    "driver MB": "driver_mb",
    "JVM MB": "jvm_mb",
    "Spark jobs": "spark_jobs",
}


def middle(found: list[Measured], name: str) -> float:
    """The median of one figure over what was measured several times."""
    return median(getattr(one, name) for one in found)


def table(figures: Figures) -> Iterator[str]:
    """All figures, a row for each measurement on each size."""
    yield f"| measurement | videos | {' | '.join(_COLUMNS)} | waves |"
    yield f"|---|---:|{'---:|' * len(_COLUMNS)}---:|"
    for name in next(iter(figures.values())):
        for size, measurements in figures.items():
            found = measurements[name]
            values = [middle(found, column) for column in _COLUMNS.values()]
            shown = [f"{value:.1f}" if value < 100 and value % 1 else f"{value:.0f}" for value in values]
            yield f"| {name} | {size} | {' | '.join(shown)} | {len(found[0].cost.waves)} |"


def targets(figures: Figures) -> Iterator[str]:
    """Each target: how many times the figure of the smallest lake, and whether that is within it."""
    first, *others = figures
    yield f"| target | times the lake of {first} | met |"
    yield "|---|---|---|"
    for name, figure, largest, most in TARGETS:
        base = middle(figures[first][name], figure)
        ratios = {size: middle(figures[size][name], figure) / base for size in others if archive.count(size) <= largest}
        listed = ", ".join(f"{size} {ratio:.2f}" for size, ratio in ratios.items())
        met = "yes" if all(ratio <= most for ratio in ratios.values()) else "no"
        yield f"| {name}: {_UNITS[figure]} at most {most:g} x | {listed or '-'} | {met if ratios else '-'} |"


def waves(figures: Figures) -> Iterator[str]:
    """What one wave of each kind costs in Spark actions, on every size."""
    yield "| a wave of | videos | actions | Spark jobs | s |"
    yield "|---|---:|---:|---:|---:|"
    for name in ("nightly, 100 new", "ingest, 10,000 new files"):
        for size, found in figures.items():
            for wave in found[name][0].cost.waves:
                yield (
                    f"| {', '.join(wave['tables'])} ({name}) | {size} | {wave['actions']} | {wave['spark_jobs']} "
                    f"| {wave['seconds']:.1f} |"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10k,100k,1m", help="numbers of videos, the smallest first")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    arguments = parser.parse_args()
    sizes = arguments.sizes.split(",")
    folder = arguments.folder.resolve()
    for size in sizes:
        archive.make(folder / "lakes" / size, archive.count(size), say=_say)
    figures: Figures = {size: {} for size in sizes}
    lakes = [copy(folder / "lakes" / size, folder / "work" / size) for size in sizes]
    # One measurement on all sizes, then the next: what is compared was measured within minutes of each other.
    for found in zip(*(measure(lake, folder) for lake in lakes), strict=True):
        for size, (name, one) in zip(sizes, found, strict=True):
            figures[size].setdefault(name, []).append(one)
            _say(f"{size}: {name}: {one.seconds:.1f} s, {one.cpu_seconds:.1f} s of CPU, {one.read_mb:.1f} MB read")
    shutil.rmtree(folder / "work")
    for part in (table, targets, waves):
        print(*part(figures), "", sep="\n")
    plain = {size: {name: [asdict(one) for one in found] for name, found in m.items()} for size, m in figures.items()}
    (folder / "bookkeeping.json").write_text(json.dumps(plain, indent=1))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
