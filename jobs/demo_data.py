"""demo-data: video files of the embedded benchmark, real H.264, the same bytes for the same seed.

deepintuit demo-data --out build/demo/data [--history 240] [--uploads 120] [--seed 0]

OUT/history/*.mp4, labels.csv     labelled clips of the split calibrate
OUT/uploads/*.mp4                 tonight's uploads: new handwriting, one broken file, one file that came twice
OUT/uploads-labels.csv            what reviewers say of the uploads later; split test
OUT/dev/*.mp4, labels.csv         with --dev N: labelled clips of the split dev, to choose settings on
OUT/align/*.mp4, labels.csv       with --align N: clips to teach the model on
OUT/align-teacher.csv             and what the oracle teacher says of them
OUT/refine/*.mp4, labels.csv      with --refine N: labelled clips of the split refine, for reinforcement learning
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import sys
from pathlib import Path

from jobs.runtime import cli
from jobs.runtime.run import Run
from models.handwriting import clips, teacher

IS_A_RUN = False  # it writes nothing of a lake
TAKES_BUDGET = False


def history(out: Path, count: int, seed: int) -> list[Path]:
    return clips.generate(out / "history", "calibrate", count, seed, workers=os.cpu_count() or 1)


def dev(out: Path, count: int, seed: int) -> list[Path]:
    return clips.generate(out / "dev", "dev", count, seed, workers=os.cpu_count() or 1)


def refine(out: Path, count: int, seed: int) -> list[Path]:
    return clips.generate(out / "refine", "refine", count, seed, workers=os.cpu_count() or 1)


def uploads(out: Path, count: int, seed: int) -> list[Path]:
    """Clips of unseen handwriting without their labels, and the two files that every real upload folder has."""
    folder = out / "uploads"
    written = clips.generate(folder, "test", count, seed, workers=os.cpu_count() or 1)
    (folder / "labels.csv").replace(out / "uploads-labels.csv")
    whole = written[0].read_bytes()
    (folder / "broken-upload.mp4").write_bytes(whole[len(whole) // 3 :])
    shutil.copyfile(written[0], folder / "sent-twice.mp4")
    return written


def align(out: Path, count: int, seed: int) -> list[Path]:
    """Clips to teach on, and the teacher's trace of each."""
    written = clips.generate(out / "align", "align", count, seed, workers=os.cpu_count() or 1)
    write_teacher(out / "align", out / "align-teacher.csv")
    return written


def write_teacher(clips: Path, out: Path, length: str = "medium") -> None:
    """What the oracle teacher says of every clip in a folder, in traces of one length."""
    with (clips / "labels.csv").open(newline="") as file:
        digits = {row["file"]: [int(digit) for digit in row["digits"].split()] for row in csv.DictReader(file)}
    with out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "trace"))
        writer.writerows(
            (name, teacher.trace(digits[name], index, length)) for index, name in enumerate(sorted(digits))
        )


def run(run: Run, arguments: argparse.Namespace) -> None:
    parts = {"history": history, "uploads": uploads, "dev": dev, "align": align, "refine": refine}
    for name, make in parts.items():
        count = getattr(arguments, name)
        if count:
            written = make(arguments.out, count, arguments.seed)
            size = sum(path.stat().st_size for path in written)
            run.record.say(f"{name}: {len(written)} clips, {size / 1e6:.1f} MB in {written[0].parent}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--history", type=int, default=240, metavar="N", help="labelled clips (default 240)")
    parser.add_argument("--uploads", type=int, default=120, metavar="N", help="clips of tonight (default 120)")
    parser.add_argument("--dev", type=int, default=0, metavar="N", help="clips to choose settings on (default none)")
    parser.add_argument("--align", type=int, default=0, metavar="N", help="clips to teach on (default none)")
    parser.add_argument("--refine", type=int, default=0, metavar="N", help="clips to refine it on (default none)")
    parser.add_argument("--seed", type=int, default=0)


def main() -> int:
    return cli.main(["demo-data", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
