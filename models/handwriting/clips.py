"""The benchmark's clips as real H.264 files, with their labels. The same bytes for the same seed on one machine."""

from __future__ import annotations

import csv
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import av

from models.handwriting.scenes import Scene, render, scene

COLUMNS = ("file", "label", "split", "digits", "kind", "hand", "form")


def write(drawn: Scene, path: Path) -> None:
    """Encode a scene as an H.264 MP4 file. The bytes repeat exactly: one thread, no clock, no version in the header."""
    height, width, _ = drawn.paper.shape
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact", "movflags": "+faststart"}) as out:
        stream = out.add_stream("libx264", rate=drawn.fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        # without mbtree: with it, the same frames give other bytes now and then, even on one thread
        stream.options = {"crf": str(drawn.crf), "preset": "veryfast", "flags": "+bitexact", "x264-params": "mbtree=0"}
        for picture in render(drawn):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())


def generate(folder: Path, subset: str, count: int, seed: int, start: int = 0, workers: int = 1) -> list[Path]:
    """Write clips `start` .. `start + count - 1` of a subset into `folder`, with their `labels.csv`.

    labels.csv has one row per clip: file, label, split (the subset's name), digits (as written, joined by spaces), kind,
    hand and form. A call for other clips adds its rows; a call for the same clips repeats the same files and rows. Returns
    the paths, in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    indices = range(start, start + count)
    jobs = [(folder / f"{subset}-{seed}-{index:06d}.mp4", seed, subset, index) for index in indices]
    if workers > 1:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            rows = list(pool.map(_write_one, jobs, chunksize=16))
    else:
        rows = [_write_one(job) for job in jobs]
    _merge_labels(folder / "labels.csv", rows)
    return [path for path, *_ in jobs]


def _write_one(job: tuple[Path, int, str, int]) -> dict[str, str]:
    path, seed, subset, index = job
    drawn = scene(seed, subset, index)
    write(drawn, path)
    digits = " ".join(map(str, drawn.digits))
    row = (path.name, drawn.label, subset, digits, drawn.kind, f"hand-{drawn.hand}", f"form-{drawn.form}")
    return dict(zip(COLUMNS, row, strict=True))


def _merge_labels(path: Path, rows: list[dict[str, str]]) -> None:
    known = {}
    if path.exists():
        with path.open(newline="") as file:
            known = {row["file"]: row for row in csv.DictReader(file)}
    known |= {row["file"]: row for row in rows}
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    with aside.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(known[name] for name in sorted(known))
    aside.replace(path)
