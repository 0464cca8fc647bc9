"""A local, lossless, size-capped cache of sampled clips: while training, a clip is decoded once, not once an epoch."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from models.video.clip import Clip
from models.video.container import Limits
from models.video.frames import FrameSpec, sample


class FrameCache:
    """Sampled clips by content and sampling, as .npz files; the least recently used go first when `max_bytes` is full.

    Safe for several processes at once: files are written aside and renamed, and a file that another process dropped is
    simply decoded again.
    """

    def __init__(self, folder: Path, spec: FrameSpec, limits: Limits, max_bytes: int) -> None:
        self.folder, self.spec, self.limits, self.max_bytes = folder, spec, limits, max_bytes
        self._sampling = hashlib.sha256(repr(sorted(asdict(spec).items())).encode()).hexdigest()[:12]
        folder.mkdir(parents=True, exist_ok=True)
        self._bytes = sum(path.stat().st_size for path in folder.glob("*.npz"))

    def load(self, video_id: str, read: Callable[[], bytes]) -> Clip:
        """What the model sees of one video; `read` gives its bytes and is called only on a miss.

        video_id: the hash of the content, hence a valid file name. Raises what `read` and `frames.sample` raise.
        """
        path = self.folder / f"{video_id}-{self._sampling}.npz"
        try:
            clip = _read(path)
            os.utime(path)
            return clip
        except (FileNotFoundError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            clip = sample(read(), self.spec, self.limits)
            self._store(path, clip)
            return clip

    def _store(self, path: Path, clip: Clip) -> None:
        aside = path.with_suffix(f".{os.getpid()}.tmp")
        with aside.open("wb") as file:
            np.savez(file, pixels=clip.pixels, times=np.array(clip.times, np.float64), duration=clip.duration)
        self._bytes += aside.stat().st_size
        aside.replace(path)
        if self._bytes > self.max_bytes:
            self._evict()

    def _evict(self) -> None:
        """Drop the least recently used files until nine tenths of the cap are left, so that not every miss has to."""
        held = sorted((path.stat().st_mtime_ns, path.stat().st_size, path) for path in self.folder.glob("*.npz"))
        self._bytes = sum(size for _, size, _ in held)
        for _, size, path in held:
            if self._bytes <= 0.9 * self.max_bytes:
                return
            path.unlink(missing_ok=True)
            self._bytes -= size


def _read(path: Path) -> Clip:
    with np.load(path) as held:
        return Clip(held["pixels"], held["times"].tolist(), float(held["duration"]))
