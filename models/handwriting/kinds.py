"""Kinds of clips: what is out of the ordinary in them, and which subsets have them.

A clip is of one kind, which its labels file names, so that figures can be told by it. What a model meets grows from subset
to subset: `align` knows few kinds, `refine` and `calibrate` several hard ones, and `test` two that are met nowhere else
(the open-instance shift). Two kinds mislead in a way that can be seen: what was filmed upside down shows a 6 as a 9, and
what is rewound shows its digits last to first, under a bar that says so. A trace alone cannot tell; video and trace
together can.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Writing:
    """How much the shape of a digit is changed: slant (shear), stretch (width against height, as a power of 2), weight (ink
    to the power of 2 to it: thin above 0, thick below), each drawn from -x to x; least: share of x that it has at least."""

    slant: float = 0.0
    stretch: float = 0.0
    weight: float = 0.0
    least: float = 0.0


@dataclass(frozen=True)
class Kind:
    """shapes: width and height in pixels, even, as 4:2:0 video wants; fps: frames a second; unevenness: how far the time of
    one digit is from that of another; crf: H.264 quality, 18 is nearly lossless; dark: ink on a light ground; others: small
    digits in the corners that do not count; bar: something before the digits; lookalikes: two neighbours that are
    mistaken for one another; turned: filmed upside down; rewound: shown last to first, under a bar that says so."""

    shapes: tuple[tuple[int, int], ...] = (
        (96, 96),
        (112, 112),
        (128, 128),
        (128, 96),
        (96, 128),
        (144, 112),
        (112, 144),
    )
    fps: tuple[int, ...] = tuple(range(8, 16))
    unevenness: float = 0.2
    crf: tuple[int, int] = (18, 30)
    dark: bool = False
    others: int = 0
    bar: bool = False
    writing: Writing = Writing(slant=0.15, stretch=0.1, weight=0.3)
    lookalikes: bool = False
    turned: bool = False
    rewound: bool = False


KINDS: dict[str, Kind] = {
    "plain": Kind(),
    "rates": Kind(fps=(5, 6, 7, 20, 24, 25, 30), unevenness=0.35),
    "aspects": Kind(shapes=((160, 80), (176, 96), (80, 160), (96, 176))),
    "inverted": Kind(dark=True),
    "distractors": Kind(others=3),
    "compressed": Kind(crf=(38, 44)),
    "lookalikes": Kind(lookalikes=True),
    "turned": Kind(turned=True),
    "rewound": Kind(rewound=True),
    "occluded": Kind(bar=True),
    "written": Kind(writing=Writing(slant=0.45, stretch=0.3, weight=0.7, least=0.5)),
}

_HARD = ("inverted", "distractors", "compressed", "lookalikes", "turned", "rewound")
_TAUGHT = ("plain", "rates", "aspects", *_HARD)

# The kinds of a subset, in turn; one that is named twice comes twice as often. `base` stands in for pretraining: it has seen
# most of the world, if seldom, and never a word about it.
MIX: dict[str, tuple[str, ...]] = {
    "base": (*["plain"] * 6, "rates", "aspects", "inverted", "distractors", "compressed", "lookalikes"),
    "align": ("plain", "plain", "plain", "rates", "aspects"),
    "refine": ("plain", *_TAUGHT),
    "calibrate": ("plain", *_TAUGHT),
    "dev": ("plain", *_TAUGHT),
    "test": ("plain", *_TAUGHT, "occluded", "written"),
}
# How far general variation (size, place, light, blur, noise, clutter) goes, of 1.
DIFFICULTY = {"base": 1.0, "align": 0.7, "refine": 1.0, "calibrate": 1.0, "dev": 1.0, "test": 1.0}

LOOKALIKES = ((1, 7), (3, 8), (4, 9), (5, 6), (0, 6), (2, 7), (3, 5), (8, 9))
