"""The two readers of a training's lessons: lessons per second, seconds until an epoch can begin, memory.

python -m benchmarks.readers [--rows 200000] [--epochs 3] [--times 3]

Lessons are made up, with about 1 KiB of text each. Each reader deals them out in a process of its own, in steps of 256, as a
training of one process asks for them; of several times the fastest counts. Memory is the most that the process holds beyond
what it held before it opened the reader (which for petastorm imports it): of its own, and with those pages of mapped files
that are in memory just then, which the system takes back when it needs them. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from models.training.lessons import COLUMNS, write
from models.training.parquet_lessons import materialise
from models.training.reading import Epochs, open_reader

PROJECT = Path(__file__).resolve().parent.parent
KINDS = ("arrow", "petastorm")
_BATCH = 256  # lessons of a step
_AT_ONCE = 10_000  # rows of a batch while they are made
_WORDS = np.array(["man", "lifts", "the", "parcel", "off", "porch", "and", "looks", "over", "his", "shoulder", "away"])


def rows(count: int) -> Iterator[pa.RecordBatch]:
    """Lessons in order, with texts of 50 to 350 words and 0 to 3 labels; every third has nothing beside its video."""
    random = np.random.default_rng(0)
    for first in range(0, count, _AT_ONCE):
        made = [
            {
                "video_id": f"{number:064x}",
                "uri": f"s3://bucket/videos/{number}.mp4",
                "said": None if number % 3 == 0 else f"title: video {number}",
                "text": " ".join(random.choice(_WORDS, int(random.integers(50, 350)))),
                "labels": ["a", "b", "c"][: number % 4],
            }
            for number in range(first, min(first + _AT_ONCE, count))
        ]
        yield pa.RecordBatch.from_pylist(made, COLUMNS)


class Peak:
    """A context manager that looks every few milliseconds how much more memory this process holds than at first."""

    def __init__(self) -> None:
        self._first, self._ended = _memory(), threading.Event()
        self.own = self.mapped = 0.0  # MB
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._ended.wait(0.005):
            own, resident = (now - then for now, then in zip(_memory(), self._first, strict=True))
            self.own, self.mapped = max(self.own, own), max(self.mapped, resident)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def _memory() -> tuple[float, float]:
    """MB of this process: anonymous, and all that is resident."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, resident = (int(lines[name].split()[0]) / 1024 for name in ("RssAnon", "VmRSS"))
    return own, resident


def measure(kind: str, path: Path, epochs: int) -> dict[str, float]:
    """What a reader costs in this process: lessons per second of all epochs, seconds of their first steps, MB."""
    with Peak() as peak:
        dealt = Epochs(open_reader(kind, path), _BATCH, seed=0)
        begins, count, began = list[float](), 0, time.monotonic()
        for step in range(epochs * len(dealt)):
            before = time.monotonic()
            count += len(dealt.due(step))
            if step % len(dealt) == 0:
                begins.append(time.monotonic() - before)
        seconds = time.monotonic() - began
    return {"per_second": count / seconds, "begin": min(begins), "own_mb": peak.own, "mapped_mb": peak.mapped}


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--rows", type=int, default=200_000)
    asked.add_argument("--epochs", type=int, default=3)
    asked.add_argument("--times", type=int, default=3)
    asked.add_argument("--child", nargs=2, metavar=("KIND", "PATH"), help=argparse.SUPPRESS)
    chosen = asked.parse_args()
    if chosen.child:
        print(json.dumps(measure(chosen.child[0], Path(chosen.child[1]), chosen.epochs)))
        return 0
    with tempfile.TemporaryDirectory(prefix="readers-") as folder:
        path = write(Path(folder), rows(chosen.rows))
        dataset = materialise(path)
        sizes = {"arrow": [path], "petastorm": list(dataset.iterdir())}
        print(f"{chosen.rows:,} lessons, {chosen.epochs} epochs, steps of {_BATCH}, the fastest of {chosen.times}\n")
        print(
            "| reader | lessons per second | s to begin an epoch | MB of its own | MB with mapped pages | MB on disk |"
        )
        print("|---|---|---|---|---|---|")
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        for _ in range(chosen.times):
            for kind in KINDS:
                found[kind].append(_in_child(kind, path, chosen.epochs))
        for kind, runs in found.items():
            fastest = max(runs, key=lambda run: run["per_second"])
            disk = sum(file.stat().st_size for file in sizes[kind]) / (1 << 20)
            print(
                f"| `{kind}` | {fastest['per_second']:,.0f} | {fastest['begin']:.2f} | {fastest['own_mb']:,.0f} | "
                f"{fastest['mapped_mb']:,.0f} | {disk:,.0f} |"
            )
    return 0


def _in_child(kind: str, path: Path, epochs: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.readers", "--epochs", str(epochs), "--child", kind, str(path)]
    return json.loads(subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.PIPE, text=True).stdout)


if __name__ == "__main__":
    sys.exit(main())
