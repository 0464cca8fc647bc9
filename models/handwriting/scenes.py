"""Clips of four handwritten digits shown one after another, as frames in memory.

A clip is a pure function of (seed, subset, index): a `Scene` holds everything that was drawn for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from models.handwriting.digits import SUBSETS, Hand, hands
from models.handwriting.kinds import DIFFICULTY, KINDS, LOOKALIKES, MIX, Kind, Writing
from models.handwriting.rule import LABELS, label_of

_BAR = 0.12  # height of the bar over a rewound clip, of the picture's
_BAR_COLOR = np.array([0.9, 0.15, 0.1], np.float32)


@dataclass(frozen=True)
class Stroke:
    """One digit on the screen: its coverage mask, when it is shown, where, and how it drifts."""

    digit: int
    ink: np.ndarray  # float32 [h, w], 0 = nothing, 1 = full ink
    start: float  # seconds
    end: float
    top: float  # pixels
    left: float
    drift: tuple[float, float]  # pixels a second, down and right


@dataclass(frozen=True)
class Scene:
    """Everything drawn for one clip. `frame(i)` renders frame i of `frames`."""

    kind: str
    hand: int
    form: int
    digits: tuple[int, ...]  # as they were written, first to last
    fps: int
    frames: int
    crf: int
    paper: np.ndarray  # float32 [H, W, 3] in 0..1: background with its clutter
    ink_color: np.ndarray  # float32 [3]
    strokes: tuple[Stroke, ...]  # in the order in which they are shown
    over: np.ndarray  # float32 [H, W, 4]: what lies before the digits, its last channel how much it covers
    turned: bool
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
        covered = self.over[..., 3:]
        picture = picture * (1.0 - covered) + self.over[..., :3] * covered
        for _ in range(self.blur):
            picture = _smooth(picture)
        rng = np.random.default_rng((*self.entropy, i))
        picture += self.noise * rng.standard_normal(picture.shape[:2], np.float32)[..., None]
        upright = (picture.clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
        return upright[::-1, ::-1] if self.turned else upright


def scene(seed: int, subset: str, index: int, difficulty: float | None = None) -> Scene:
    """Draw clip `index` of a subset. Every three consecutive clips are of one kind and one hand, and show each label once.

    difficulty: 0 draws large, clean, evenly timed digits and 1 the full variation; in between, a blend; None: the subset's.
    """
    use, three = list(SUBSETS).index(subset), index // 3
    name, hand = _in_turn(MIX[subset], seed, use, three, 2), _in_turn(hands(subset), seed, use, three, 3)
    kind, hard = KINDS[name], DIFFICULTY[subset] if difficulty is None else difficulty
    label = LABELS[np.random.default_rng((seed, use, three, 1)).permutation(3)[index % 3]]
    entropy = (seed, use, index, 0)
    rng = np.random.default_rng(entropy)
    written = _draw_digits(rng, label, kind)
    width, height = kind.shapes[rng.integers(len(kind.shapes))]
    fps = int(rng.choice(kind.fps))
    frames = round(rng.uniform(2.0, 4.0) * fps)
    paper, ink_color = _draw_paper(rng, width, height, kind.dark, hard)
    for _ in range(kind.others):
        _lay_other(rng, paper, hand, ink_color)
    shown = written[::-1] if kind.rewound else written
    return Scene(
        kind=name,
        hand=hand.number,
        form=hand.form,
        digits=written,
        fps=fps,
        frames=frames,
        crf=int(rng.integers(kind.crf[0], kind.crf[1] + 1)),
        paper=paper,
        ink_color=ink_color,
        strokes=_draw_strokes(rng, hand, shown, kind, width, height, frames / fps, hard),
        over=_draw_over(rng, kind, width, height),
        turned=kind.turned,
        blur=int(rng.integers(0, 1 + round(2 * hard))),
        noise=float(rng.uniform(0.0, 0.06 * hard)),
        entropy=entropy,
    )


def render(scene: Scene, only: Sequence[int] | None = None) -> np.ndarray:
    """Frames of a scene: uint8 [T, H, W, 3], RGB, at `scene.fps`; all of them, or those whose numbers are in `only`."""
    return np.stack([scene.frame(i) for i in (range(scene.frames) if only is None else only)])


def _in_turn(values: Sequence, seed: int, use: int, number: int, what: int):
    """Each of the values once in every len(values) numbers, in an order of its own each time."""
    turn, place = divmod(number, len(values))
    return values[np.random.default_rng((seed, use, turn, what)).permutation(len(values))[place]]


def _draw_digits(rng: np.random.Generator, label: str, kind: Kind) -> tuple[int, ...]:
    """Four digits with the given label. Of the mixed ones half miss a rise or a fall by one digit only."""
    while True:
        drawn = rng.choice(10, 4, replace=False)
        if label != "mixed":
            drawn = np.sort(drawn)[:: 1 if label == "rising" else -1]
        elif rng.random() < 0.5:
            drawn = np.sort(drawn)[:: rng.choice((1, -1))]
            drawn[rng.integers(4)] = rng.integers(10)
        digits = tuple(int(digit) for digit in drawn)
        alike = any(tuple(sorted(pair)) in LOOKALIKES for pair in pairwise(digits))
        if label_of(digits) == label and (alike or not kind.lookalikes):
            return digits


def _draw_paper(
    rng: np.random.Generator, width: int, height: int, dark: bool, difficulty: float
) -> tuple[np.ndarray, np.ndarray]:
    """Background with clutter, lit from above, and the colour of the ink: light on dark, or dark on light."""
    contrast = 1.0 - rng.uniform(0.0, 0.45) * difficulty
    low = rng.uniform(0.0, 1.0 - contrast)
    tint = lambda: rng.uniform(-0.08, 0.08, 3) * difficulty  # noqa: E731
    lower, upper = low + tint(), low + contrast + tint()
    ink, base = (lower, upper) if dark else (upper, lower)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    light, side = rng.uniform(0.05, 0.15) * difficulty, rng.uniform(-0.08, 0.08) * difficulty
    shade = light * (0.5 - y / height) + side * (x / width - 0.5)
    for _ in range(rng.integers(0, 1 + round(5 * difficulty))):  # bars and spots behind the digit
        cy, cx, size = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(2, 7)
        strength = rng.uniform(-0.16, 0.16)
        if rng.random() < 0.5:
            shade += strength * (np.hypot(y - cy, x - cx) < 2 * size)
        else:
            angle = rng.uniform(0, np.pi)
            shade += strength * (np.abs((y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)) < size / 3)
    return np.clip(base + shade[..., None], 0, 1).astype(np.float32), np.clip(ink, 0, 1).astype(np.float32)


def _lay_other(rng: np.random.Generator, paper: np.ndarray, hand: Hand, color: np.ndarray) -> None:
    """A small, faint digit near a corner of the paper, in place: it is there all the time and counts for nothing."""
    own = hand.ink[int(rng.integers(10))]
    size = round(0.24 * min(paper.shape[:2]))
    ink = 0.6 * _shaped(own[rng.integers(len(own))], size, size, rng.uniform(-20, 20), 0.0)
    corner = [rng.choice((0, side - size)) + rng.choice((-1, 1)) * rng.integers(0, 4) for side in paper.shape[:2]]
    _lay(paper, Stroke(-1, ink, 0.0, 0.0, corner[0], corner[1], (0.0, 0.0)), 0.0, color)


def _draw_over(rng: np.random.Generator, kind: Kind, width: int, height: int) -> np.ndarray:
    """What lies before the digits: a grey bar across the middle, or the bar that says the clip is rewound."""
    over = np.zeros((height, width, 4), np.float32)
    if kind.bar:
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        angle, place = rng.uniform(0, np.pi), rng.uniform(-0.12, 0.12) * min(width, height)
        distance = (y - height / 2) * np.cos(angle) - (x - width / 2) * np.sin(angle) + place
        over[np.abs(distance) < 0.085 * min(width, height)] = (*rng.uniform(0.3, 0.6, 3), 1.0)
    if kind.rewound:
        over[: max(6, round(_BAR * height))] = (*_BAR_COLOR, 1.0)
    return over


def _draw_strokes(
    rng: np.random.Generator,
    hand: Hand,
    shown: tuple[int, ...],
    kind: Kind,
    width: int,
    height: int,
    seconds: float,
    difficulty: float,
) -> tuple[Stroke, ...]:
    """Place the digits in space and time.

    Each stays on screen for more than an eighth of the clip, so that eight evenly spread frames never miss one.
    """
    pace = 1.0 + rng.uniform(-1.0, 1.0, 4) * kind.unevenness * difficulty
    pause = rng.uniform(0.0, 0.035, 5) * difficulty * (kind.unevenness <= 0.2)
    shown_for = pace / pace.sum() * (1.0 - pause.sum()) * seconds
    side, now, strokes = min(width, height), 0.0, []
    for digit, span, before in zip(shown, shown_for, pause, strict=False):
        now += before * seconds
        own = hand.ink[digit]
        size = side * (0.95 - rng.uniform(0.0, 0.32) * difficulty)
        ink = _written(rng, own[rng.integers(len(own))], size, kind.writing, rng.uniform(-12, 12) * difficulty)
        room = np.array((height, width), float) - ink.shape
        place = room / 2 + (rng.random(2) - 0.5) * room * difficulty
        drift = rng.uniform(-0.04, 0.04, 2) * side * difficulty
        strokes.append(
            Stroke(digit, ink, now, now + span, float(place[0]), float(place[1]), (float(drift[0]), float(drift[1])))
        )
        now += span
    return tuple(strokes)


def _written(rng: np.random.Generator, image: np.ndarray, size: float, writing: Writing, degrees: float) -> np.ndarray:
    """A digit of about `size` pixels in another writing; neither side is larger than that."""
    slant, stretch, weight = (
        most * rng.choice((-1, 1)) * rng.uniform(writing.least, 1.0)
        for most in (writing.slant, writing.stretch, writing.weight)
    )
    height, width = (round(size * 2.0 ** min(0.0, power)) for power in (-stretch, stretch))
    return _shaped(image, height, width, degrees, slant) ** np.float32(2.0**weight)


def _shaped(image: np.ndarray, height: int, width: int, degrees: float, slant: float) -> np.ndarray:
    """An 8 x 8 image scaled to float32 [height, width], slanted and turned about its centre, bilinear."""
    angle = np.deg2rad(degrees)
    y, x = np.meshgrid(
        (np.arange(height) + 0.5) / height * 8 - 4, (np.arange(width) + 0.5) / width * 8 - 4, indexing="ij"
    )
    x = x + slant * y
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
    height, width = stroke.ink.shape
    top = int(np.clip(round(stroke.top + stroke.drift[0] * elapsed), 0, picture.shape[0] - height))
    left = int(np.clip(round(stroke.left + stroke.drift[1] * elapsed), 0, picture.shape[1] - width))
    area = picture[top : top + height, left : left + width]
    area += stroke.ink[..., None] * (color - area)


def _smooth(picture: np.ndarray) -> np.ndarray:
    """One pass of the kernel (1, 2, 1) / 4 along both axes; borders repeat."""
    padded = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = 0.5 * padded[1:-1] + 0.25 * (padded[:-2] + padded[2:])
    return 0.5 * rows[:, 1:-1] + 0.25 * (rows[:, :-2] + rows[:, 2:])
