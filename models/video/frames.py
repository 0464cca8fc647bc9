"""Frames of a clip: probe a file and sample it, the same way for training, teaching and scoring.

Runs in small spawned child processes, so it and its neighbours import only PyAV and numpy. Frames are addressed by
presentation time, never by number, so variable frame rates are sampled evenly in time.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import av
import numpy as np

from models.video.choose import SAMPLINGS
from models.video.clip import Clip
from models.video.container import MOST_FPS, Container, Limits, MediaError
from models.video.fit import FITS, Fit, rotation

SHOWN = ("all", "shuffled", "none")
_FRAMES_PER_STEP = 2  # of both model families: so many frames become one step of tokens


@dataclass(frozen=True)
class FrameSpec:
    """Which frames of a clip the model sees, and how large.

    count: most frames; max_pixels: most pixels of one; fps: most frames a second; cell: side in pixels of the square that
    becomes one token (see cell.py). fit: one of FITS; sampling: one of SAMPLINGS. show: one of SHOWN: all of them in their
    order; shuffled: the same steps of pictures in another one, at the times as they were; none: no clip in the prompt. The
    last two ask whether a task needs video.
    """

    count: int
    max_pixels: int
    fps: float
    cell: int
    fit: str = "aspect"
    sampling: str = "uniform"
    show: str = "all"

    def __post_init__(self) -> None:
        if self.count < 1 or self.max_pixels < 1 or self.cell < 1 or self.fps <= 0:
            raise ValueError(f"FrameSpec: count, max_pixels, fps and cell must be positive, found {self}")
        for field, known in (("fit", FITS), ("sampling", SAMPLINGS), ("show", SHOWN)):
            if getattr(self, field) not in known:
                raise ValueError(f"{field}: expected one of {', '.join(known)}, found {getattr(self, field)!r}")
        if self.max_pixels < self.cell**2:
            raise ValueError(
                f"max_pixels: expected at least {self.cell**2}, as one token of this model shows {self.cell} x {self.cell} "
                f"pixels; found {self.max_pixels}"
            )

    def shown(self, duration: float) -> int:
        """How many frames of a clip of so many seconds are shown: at least one."""
        return min(self.count, max(1, round(duration * self.fps)))

    @property
    def most_steps(self) -> int:
        """Steps in time of the longest clip."""
        return -(-self.count // _FRAMES_PER_STEP)

    @property
    def most_tokens(self) -> int:
        """Tokens of the largest clip; a model that tells the time in words adds some to each step."""
        return self.most_steps * (self.max_pixels // self.cell**2)

    def fitting(self, pixel_aspect: float = 1.0) -> Fit:
        """What brings the frames of one clip to size."""
        return Fit(self.fit, self.max_pixels, self.cell, pixel_aspect)


@dataclass(frozen=True)
class Probe:
    """Facts about a clip, measured.

    codec: name of the video codec; width, height: stored size in pixels, before rotation; fps: average frames per
    second, None where the clock runs so that no camera could have made them; duration_s: seconds from the first frame to
    the end of the last; frames: number of video packets; rotation: degrees counter-clockwise by which a frame must be
    turned to be upright; has_audio: is there an audio stream? frames_promised: what the file should have; frames_tried,
    frames_decoded: how many were decoded to see whether they can be, and could; damage: share of the promised frames that
    is missing or, by those tried, broken.
    """

    codec: str
    width: int
    height: int
    fps: float | None
    duration_s: float
    frames: int
    rotation: int
    has_audio: bool
    frames_promised: int
    frames_tried: int
    frames_decoded: int
    damage: float


def probe(data: bytes, limits: Limits) -> Probe:
    """Measure a clip: list its packets and decode some of them. Raises MediaError."""
    with Container(data, limits) as clip:
        first = next(clip.decode(), None)
        if first is None:
            raise clip.nothing_decoded()
        index = clip.index
        fps = len(index.times) / index.duration
        (tried, good), promised = clip.examine(), clip.promised()
        damage = 1.0 - len(index.times) / promised * good / tried
        if damage > limits.max_damage:
            raise MediaError(
                "damaged",
                f"{len(index.times)} of {promised} frames are there, {good} of {tried} that were tried can be decoded: "
                f"{damage:.0%} is lost, the limit is {limits.max_damage:.0%}",
            )
        return Probe(
            codec=clip.stream.codec_context.codec.name,
            width=first.width,
            height=first.height,
            fps=fps if fps <= MOST_FPS else None,
            duration_s=index.duration,
            frames=len(index.times),
            rotation=rotation(first),
            has_audio=len(clip.container.streams.audio) > 0,
            frames_promised=promised,
            frames_tried=tried,
            frames_decoded=good,
            damage=damage,
        )


def sample(data: bytes, spec: FrameSpec, limits: Limits) -> Clip:
    """The frames of a clip that the model sees, upright, with their presentation times counted from the clip's first frame.

    Of `spec.shown(duration)` frames uniform sampling takes as number i the one on screen at (i + 0.5) * duration / frames;
    a clip that holds fewer repeats them, with the same time. Long clips are entered at the keyframes before the targets,
    never decoded whole. Where a frame does not decode another one stands for it; `lost` counts those. Raises MediaError.
    """
    with Container(data, limits) as clip:
        index = clip.index
        shown, chooser = spec.shown(index.duration), SAMPLINGS[spec.sampling]
        wanted = index.on_screen(chooser.candidates * shown)
        seen = _on_screen(clip, wanted, spec.fitting(clip.pixel_aspect))
        chosen = chooser.choose([picture for _, picture in seen], shown, spec.cell)
        kept = [seen[i] for i in chosen]
        slack = 1.5 * index.duration / len(index.times)  # a broken clock is off by less
        lost = sum(abs(seen[i][0] - wanted[i]) > slack for i in chosen)
        # a broken clock may tell a later time than the packets did
        times = [min(max(time - index.times[0], 0.0), index.duration) for time, _ in kept]
        pictures = np.stack([picture for _, picture in kept])
        if spec.show == "shuffled":
            pictures = pictures[_another_order(len(pictures), zlib.crc32(data))]
        return Clip(pictures, times, index.duration, lost)


def _another_order(count: int, seed: int) -> np.ndarray:
    """An order of so many frames, by the seed, that keeps together what becomes one step of tokens: order is what is lost,
    and no step shows two pictures that were far apart."""
    steps, order = count // _FRAMES_PER_STEP, np.arange(count)
    whole = order[: steps * _FRAMES_PER_STEP].reshape(steps, _FRAMES_PER_STEP)
    return np.concatenate([np.random.default_rng(seed).permutation(whole).ravel(), order[whole.size :]])


def _on_screen(clip: Container, wanted: Sequence[float], fit: Fit) -> list[tuple[float, np.ndarray]]:
    """(time, picture) for every wanted time; where a frame did not decode, the next one that did, else the last."""
    seen: list[tuple[float, np.ndarray]] = []
    last: tuple[float, av.VideoFrame] | None = None
    for time, frame in clip.frames_towards(wanted):
        last = time, frame
        if time < wanted[len(seen)]:
            continue
        picture = fit(frame)
        while len(seen) < len(wanted) and time >= wanted[len(seen)]:
            seen.append((time, picture))
        if len(seen) == len(wanted):
            return seen
    if last is None:
        raise clip.nothing_decoded()
    return seen + [(last[0], fit(last[1]))] * (len(wanted) - len(seen))


def fitted(video: np.ndarray, spec: FrameSpec) -> np.ndarray:
    """Frames in memory, uint8 [T, H, W, 3], brought to the size that the model sees."""
    fit = spec.fitting()
    return np.stack([fit(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")) for frame in video])


def on_screen_indices(frames: int, count: int) -> list[int]:
    """Which of `frames` equally spaced frames are on screen at the `count` target times of `sample`."""
    return [(2 * i + 1) * frames // (2 * count) for i in range(count)]
