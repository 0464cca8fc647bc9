"""Clips of four handwritten digits shown one after another, as frames in memory or as real H.264 files.

A clip is a pure function of (seed, subset, index): a `Scene` holds everything that was drawn for it, and rendering or
encoding it twice on one machine gives the same bytes.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np

from models.handwriting import digits as handwriting

LABELS = ("rising", "falling", "mixed")

# Sides in pixels: even, as 4:2:0 video wants; square, landscape and portrait.
_SHAPES = ((96, 96), (112, 112), (128, 128), (144, 144), (128, 96), (144, 112), (160, 112), (96, 128), (112, 144))


def label_of(digits: Sequence[int]) -> str:
    """`rising` if every digit is greater than the one before, `falling` if every one is smaller, else `mixed`.

    A tie is neither a rise nor a fall: one pair of equal neighbours makes the clip mixed.
    """
    if all(a < b for a, b in pairwise(digits)):
        return "rising"
    if all(a > b for a, b in pairwise(digits)):
        return "falling"
    return "mixed"


@dataclass(frozen=True)
class Stroke:
    """One digit on the screen: its coverage mask, when it is shown, where, and how it drifts."""

    digit: int
    ink: np.ndarray  # float32 [s, s], 0 = nothing, 1 = full ink
    start: float  # seconds
    end: float
    top: float  # pixels
    left: float
    drift: tuple[float, float]  # pixels a second, down and right


@dataclass(frozen=True)
class Scene:
    """Everything drawn for one clip. `frame(i)` renders frame i of `frames`."""

    digits: tuple[int, ...]
    fps: int
    frames: int
    crf: int  # H.264 quality: 18 is nearly lossless, 36 is poor
    paper: np.ndarray  # float32 [H, W, 3] in 0..1: background with its clutter
    ink_color: np.ndarray  # float32 [3]
    strokes: tuple[Stroke, ...]
    blur: int  # passes of a 3-tap smoothing
    noise: float  # standard deviation, in 0..1
    entropy: tuple[int, ...]  # seeds the noise of each frame

    @property
    def label(self) -> str:
        return label_of(self.digits)

    def shows(self, i: int) -> int | None:
        """The digit on screen in frame i, None in a pause."""
        stroke = self._stroke(i)
        return None if stroke is None else stroke.digit

    def _time(self, i: int) -> float:
        return (i + 0.5) / self.fps  # seconds; the middle of the frame's time on screen

    def _stroke(self, i: int) -> Stroke | None:
        return next((stroke for stroke in self.strokes if stroke.start <= self._time(i) < stroke.end), None)

    def frame(self, i: int) -> np.ndarray:
        """Frame i: uint8 [H, W, 3], RGB."""
        picture, stroke = self.paper.copy(), self._stroke(i)
        if stroke is not None:
            _lay(picture, stroke, self._time(i) - stroke.start, self.ink_color)
        for _ in range(self.blur):
            picture = _smooth(picture)
        rng = np.random.default_rng((*self.entropy, i))
        picture += self.noise * rng.standard_normal(picture.shape[:2], np.float32)[..., None]
        return (picture.clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def scene(seed: int, subset: str, index: int, difficulty: float = 1.0) -> Scene:
    """Draw clip `index` of a subset. Labels are balanced: every three consecutive clips show each label once.

    difficulty: 0 draws large, clean, evenly timed digits and 1 the full variation; in between, a blend.
    """
    use = handwriting.SUBSETS.index(subset)
    kind = np.random.default_rng((seed, use, index // 3, 1)).permutation(3)[index % 3]
    entropy = (seed, use, index, 0)
    rng = np.random.default_rng(entropy)
    shown = _draw_digits(rng, LABELS[kind])
    width, height = _SHAPES[rng.integers(len(_SHAPES))]
    fps = int(rng.integers(8, 16))
    frames = round(rng.uniform(2.0, 4.0) * fps)
    paper, ink_color = _draw_paper(rng, width, height, difficulty)
    return Scene(
        digits=shown,
        fps=fps,
        frames=frames,
        crf=int(rng.integers(18, 19 + round(14 * difficulty))),
        paper=paper,
        ink_color=ink_color,
        strokes=_draw_strokes(rng, handwriting.images(subset), shown, width, height, frames / fps, difficulty),
        blur=int(rng.integers(0, 1 + round(2 * difficulty))),
        noise=float(rng.uniform(0.0, 0.06 * difficulty)),
        entropy=entropy,
    )


def render(scene: Scene, only: Sequence[int] | None = None) -> np.ndarray:
    """Frames of a scene: uint8 [T, H, W, 3], RGB, at `scene.fps`; all of them, or those whose numbers are in `only`."""
    return np.stack([scene.frame(i) for i in (range(scene.frames) if only is None else only)])


def write(scene: Scene, path: Path) -> None:
    """Encode a scene as an H.264 MP4 file. The bytes repeat exactly: one thread, no clock, no version in the header."""
    height, width, _ = scene.paper.shape
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact", "movflags": "+faststart"}) as out:
        stream = out.add_stream("libx264", rate=scene.fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        # without mbtree: with it, the same frames give other bytes now and then, even on one thread
        stream.options = {"crf": str(scene.crf), "preset": "veryfast", "flags": "+bitexact", "x264-params": "mbtree=0"}
        for picture in render(scene):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())


def generate(folder: Path, subset: str, count: int, seed: int, start: int = 0, workers: int = 1) -> list[Path]:
    """Write clips `start` .. `start + count - 1` of a subset into `folder`, with their `labels.csv`.

    labels.csv has one row per clip: file, label, split (the subset's name), digits (joined by spaces). A call for other
    clips adds its rows; a call for the same clips repeats the same files and rows. Returns the paths, in order.
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
    return {"file": path.name, "label": drawn.label, "split": subset, "digits": " ".join(map(str, drawn.digits))}


def _merge_labels(path: Path, rows: list[dict[str, str]]) -> None:
    known = {}
    if path.exists():
        with path.open(newline="") as file:
            known = {row["file"]: row for row in csv.DictReader(file)}
    known |= {row["file"]: row for row in rows}
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    with aside.open("w", newline="") as file:
        writer = csv.DictWriter(file, ("file", "label", "split", "digits"), lineterminator="\n")
        writer.writeheader()
        writer.writerows(known[name] for name in sorted(known))
    aside.replace(path)


def _draw_digits(rng: np.random.Generator, label: str) -> tuple[int, ...]:
    """Four digits with the given label. Half of the mixed ones miss a rise or a fall by one digit only."""
    while True:
        shown = rng.integers(0, 10, 4)
        if label != "mixed":
            shown = np.sort(rng.choice(10, 4, replace=False))[:: 1 if label == "rising" else -1]
        elif rng.random() < 0.5:
            shown = np.sort(rng.choice(10, 4, replace=False))[:: rng.choice((1, -1))]
            shown[rng.integers(4)] = rng.integers(10)
        digits = tuple(int(digit) for digit in shown)
        if label_of(digits) == label:
            return digits


def _draw_paper(rng: np.random.Generator, width: int, height: int, difficulty: float) -> tuple[np.ndarray, np.ndarray]:
    """Background with clutter and the colour of the ink, light on dark or dark on light."""
    contrast = 1.0 - rng.uniform(0.0, 0.45) * difficulty
    dark = rng.uniform(0.0, 1.0 - contrast)
    tint = lambda: rng.uniform(-0.08, 0.08, 3) * difficulty  # noqa: E731
    low, high = dark + tint(), dark + contrast + tint()
    ink, base = (low, high) if rng.random() < 0.4 * min(1.0, 2 * difficulty) else (high, low)
    slope = rng.uniform(-0.12, 0.12, 2) * difficulty
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    shade = slope[0] * (y / height - 0.5) + slope[1] * (x / width - 0.5)
    for _ in range(rng.integers(0, 1 + round(5 * difficulty))):  # bars and spots behind the digit
        cy, cx, size = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(2, 7)
        strength = rng.uniform(-0.16, 0.16)
        if rng.random() < 0.5:
            shade += strength * (np.hypot(y - cy, x - cx) < 2 * size)
        else:
            angle = rng.uniform(0, np.pi)
            shade += strength * (np.abs((y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)) < size / 3)
    return np.clip(base + shade[..., None], 0, 1).astype(np.float32), np.clip(ink, 0, 1).astype(np.float32)


def _draw_strokes(
    rng: np.random.Generator,
    images: dict[int, np.ndarray],
    shown: tuple[int, ...],
    width: int,
    height: int,
    seconds: float,
    difficulty: float,
) -> tuple[Stroke, ...]:
    """Place the digits in space and time.

    Each stays on screen for more than an eighth of the clip, so that eight evenly spread frames never miss one.
    """
    pace = 1.0 + rng.uniform(-0.2, 0.25, 4) * difficulty
    pause = rng.uniform(0.0, 0.035, 5) * difficulty
    shown_for = pace / pace.sum() * (1.0 - pause.sum()) * seconds
    side, now, strokes = min(width, height), 0.0, []
    for digit, span, before in zip(shown, shown_for, pause, strict=False):
        now += before * seconds
        own = images[digit]
        size = round(side * (0.95 - rng.uniform(0.0, 0.32) * difficulty))
        ink = _turned(own[rng.integers(len(own))], size, rng.uniform(-12, 12) * difficulty)
        room = np.array((height - size, width - size), float)
        place = room / 2 + (rng.random(2) - 0.5) * room * difficulty
        drift = rng.uniform(-0.04, 0.04, 2) * side * difficulty
        strokes.append(
            Stroke(digit, ink, now, now + span, float(place[0]), float(place[1]), (float(drift[0]), float(drift[1])))
        )
        now += span
    return tuple(strokes)


def _turned(image: np.ndarray, size: int, degrees: float) -> np.ndarray:
    """An 8 x 8 image scaled to float32 [size, size] and turned about its centre, bilinear."""
    angle = np.deg2rad(degrees)
    step = (np.arange(size) + 0.5) / size * 8 - 4
    y, x = np.meshgrid(step, step, indexing="ij")
    rows = np.cos(angle) * y - np.sin(angle) * x + 4.5  # + 1 for the padding, - 0.5 for the pixel's centre
    columns = np.sin(angle) * y + np.cos(angle) * x + 4.5
    padded = np.pad(image, 1)
    rows, columns = np.clip(rows, 0, 8.999), np.clip(columns, 0, 8.999)
    r, c = rows.astype(int), columns.astype(int)
    dr, dc = rows - r, columns - c
    upper = padded[r, c] * (1 - dc) + padded[r, c + 1] * dc
    lower = padded[r + 1, c] * (1 - dc) + padded[r + 1, c + 1] * dc
    return (upper * (1 - dr) + lower * dr).astype(np.float32)


def _lay(picture: np.ndarray, stroke: Stroke, elapsed: float, color: np.ndarray) -> None:
    """Blend a stroke into the picture, in place, kept inside the frame."""
    size = len(stroke.ink)
    top = int(np.clip(round(stroke.top + stroke.drift[0] * elapsed), 0, picture.shape[0] - size))
    left = int(np.clip(round(stroke.left + stroke.drift[1] * elapsed), 0, picture.shape[1] - size))
    area = picture[top : top + size, left : left + size]
    area += stroke.ink[..., None] * (color - area)


def _smooth(picture: np.ndarray) -> np.ndarray:
    """One pass of the kernel (1, 2, 1) / 4 along both axes; borders repeat."""
    padded = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = 0.5 * padded[1:-1] + 0.25 * (padded[:-2] + padded[2:])
    return 0.5 * rows[:, 1:-1] + 0.25 * (rows[:, :-2] + rows[:, 2:])
