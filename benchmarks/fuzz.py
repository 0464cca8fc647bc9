"""Hostile files by the thousand: is each of them sampled, or refused with a reason?

    python -m benchmarks.fuzz [--cases 10000] [--seed 0] [--keep FOLDER]

Real encodes of eight codecs are mutated (bits flipped, cut, spliced into each other, headers edited, stretches zeroed or
said twice) and go through the decoders that jobs use, with their bounds. Prints what became of them, by codec and reason,
with the slowest file and the most memory that a decoder took. The exit code is 1 where a case had no answer or took longer
than its bound, and where it met an error that nobody expected. --keep FOLDER: keeps such files, and those that a decoder
died of.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np

from models.video.container import Limits, MediaError
from models.video.frames import FrameSpec, probe, sample
from models.video.pool import LOST, DecodePool, DecodeSettings

CODECS = {  # codec: container
    "libx264": "mp4",
    "libx265": "matroska",
    "mpeg4": "avi",
    "libvpx": "webm",
    "libvpx-vp9": "webm",
    "mjpeg": "mov",
    "mpeg2video": "mpegts",
    "ffv1": "matroska",
}
LIMITS = Limits(max_bytes=1 << 24, max_pixels=1 << 22, max_seconds=600, max_frames=20_000)
SPEC = FrameSpec(count=8, max_pixels=32 * 32, fps=4.0, cell=8)
BOUNDS = DecodeSettings(workers=2, timeout_s=20.0, memory_bytes=1 << 30, ahead=8)
_FRAMES, _SIZE = 140, (96, 64)  # more than a probe decodes whole
_SLACK_S = 5.0  # a child that is over its time is killed about so much later


@dataclass(frozen=True)
class Case:
    """A file: the codec that it was made with, what was done to it, its bytes."""

    codec: str
    mutation: str
    data: bytes


@cache
def encoded(codec: str) -> bytes:
    """A clip of noise that moves, with keyframes and, where the codec has them, frames that lean on others. Made once, as
    encoders do not promise the same bytes again."""
    buffer, base = io.BytesIO(), np.random.default_rng(0).integers(0, 255, (_SIZE[1], _SIZE[0], 3), dtype=np.uint8)
    with av.open(buffer, "w", format=CODECS[codec], options={"fflags": "+bitexact"}) as out:  # else a number by lot
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height = _SIZE
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.thread_count = 12, 1
        if codec in ("libx264", "libx265", "mpeg2video", "mpeg4"):
            stream.codec_context.max_b_frames = 2
        for k in range(_FRAMES):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(base, 2 * k, axis=1), format="rgb24")))
        out.mux(stream.encode())
    return buffer.getvalue()


def _flip(data: bytearray, rng: random.Random, others: list[bytes]) -> bytes:
    for _ in range(rng.choice((1, 8, 64, 512))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _cut(data: bytearray, rng: random.Random, others: list[bytes]) -> bytes:
    return bytes(data[: rng.randrange(len(data))])


def _lose(data: bytearray, rng: random.Random, others: list[bytes]) -> bytes:
    start = rng.randrange(len(data))
    return bytes(data[:start] + data[start + rng.randrange(1, 4096) :])


def _splice(data: bytearray, rng: random.Random, others: list[bytes]) -> bytes:
    other, at = rng.choice(others), rng.randrange(len(data))
    return bytes(data[:at]) + other[rng.randrange(len(other)) :]


def _header(data: bytearray, rng: random.Random, others: list[bytes]) -> bytes:
    """Numbers near the begin or the end, where containers keep sizes, counts and clocks."""
    for _ in range(rng.choice((1, 4, 16))):
        at = rng.randrange(min(1024, len(data)))
        at = at if rng.random() < 0.5 else len(data) - 1 - at
        value = rng.choice((0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF))
        data[at : at + 4] = value.to_bytes(4, rng.choice(("big", "little")))
    return bytes(data)


def _zero(data: bytearray, rng: random.Random, others: list[bytes]) -> bytes:
    start = rng.randrange(len(data))
    length = min(rng.randrange(1, 4096), len(data) - start)
    data[start : start + length] = bytes(length)
    return bytes(data)


def _again(data: bytearray, rng: random.Random, others: list[bytes]) -> bytes:
    start = rng.randrange(len(data))
    return bytes(data[:start] + data[start : start + rng.randrange(1, 4096)] * rng.choice((2, 50)) + data[start:])


MUTATIONS: dict[str, Callable[[bytearray, random.Random, list[bytes]], bytes]] = {
    "flip": _flip,
    "cut": _cut,
    "lose": _lose,
    "splice": _splice,
    "header": _header,
    "zero": _zero,
    "again": _again,
}


def cases(count: int, seed: int) -> Iterator[Case]:
    """The same ones for a seed, in one process; one in eight is mutated twice."""
    files = {codec: encoded(codec) for codec in CODECS}
    others, rng = list(files.values()), random.Random(seed)
    for _ in range(count):
        codec = rng.choice(list(files))
        data, names = files[codec], rng.choices(list(MUTATIONS), k=2 if rng.random() < 0.125 else 1)
        for name in names:
            data = MUTATIONS[name](bytearray(data or b"\0" * 16), rng, others)
        yield Case(codec, "+".join(names), data)


def answer(data: bytes) -> tuple[str, float, float]:
    """In a decoder: what becomes of a file, the seconds that it took, the most megabytes that this decoder ever had."""
    began, said = time.monotonic(), "sampled"
    try:
        found = probe(data, LIMITS)
        clip = sample(data, SPEC, LIMITS)
        assert clip.pixels.shape[0] == len(clip.times) and all(0 <= time <= clip.duration for time in clip.times)
        if found.damage or clip.lost:
            said = "sampled, marked as damaged"
    except MediaError as error:
        said = error.reason
    return said, time.monotonic() - began, _peak_mb()


def _peak_mb() -> float:
    """What getrusage tells of a child is its parent's, where that is larger."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def run(count: int, seed: int, keep: Path | None) -> dict[str, Any]:
    """What became of so many cases."""
    found: dict[str, Counter[str]] = {codec: Counter() for codec in CODECS}
    slowest, most_mb, died, unexpected = 0.0, 0.0, 0, list[str]()
    began = time.monotonic()
    with DecodePool(answer, BOUNDS) as pool:
        for case, result in pool.map(cases(count, seed), argument=lambda case: case.data):
            if isinstance(result, MediaError):  # what the decoder itself refuses comes back as its answer
                found[case.codec][result.reason] += 1
                if result.reason in LOST:
                    died += 1
                else:
                    unexpected.append(str(result))
                if keep:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{case.codec}-{case.mutation}-{died + len(unexpected)}.bin").write_bytes(case.data)
                continue
            said, seconds, megabytes = result
            found[case.codec][said] += 1
            slowest, most_mb = max(slowest, seconds), max(most_mb, megabytes)
    answered = sum(sum(counts.values()) for counts in found.values())
    return {
        "cases": count,
        "seed": seed,
        "answered": answered,
        "decoders_died": died,
        "unexpected": unexpected,
        "slowest_s": round(slowest, 2),
        "most_mb": round(most_mb),
        "seconds": round(time.monotonic() - began),
        "by_codec": {codec: dict(counts.most_common()) for codec, counts in found.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for files that a decoder died of")
    asked = parser.parse_args()
    told = run(asked.cases, asked.seed, asked.keep)
    print(json.dumps(told, indent=1))
    bounded = told["slowest_s"] <= BOUNDS.timeout_s + _SLACK_S
    return 0 if told["answered"] == asked.cases and bounded and not told["unexpected"] else 1


if __name__ == "__main__":
    sys.exit(main())
