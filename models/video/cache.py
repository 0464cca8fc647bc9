"""A local, lossless, size-capped cache of sampled frames: while training, a clip is decoded once, not once an epoch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from models.video.frames import FrameSpec, Limits, sample


class FrameCache:
    """Sampled frames by content and sampling, as .npy files; the least recently used go first when `max_bytes` is full.

    Safe for several processes at once: files are written aside and renamed, and a file that another process dropped is
    simply decoded again.
    """

    def __init__(self, folder: Path, spec: FrameSpec, limits: Limits, max_bytes: int) -> None:
        self.folder, self.spec, self.limits, self.max_bytes = folder, spec, limits, max_bytes
        self._sampling = hashlib.sha256(repr(sorted(asdict(spec).items())).encode()).hexdigest()[:12]
        folder.mkdir(parents=True, exist_ok=True)
        self._bytes = sum(path.stat().st_size for path in folder.glob("*.npy"))

    def load(self, video_id: str, read: Callable[[], bytes]) -> np.ndarray:
        """Frames of one video, uint8 [count, size, size, 3]; `read` gives its bytes and is called only on a miss.

        video_id: the hash of the content, hence a valid file name. Raises what `read` and `frames.sample` raise.
        """
        path = self.folder / f"{video_id}-{self._sampling}.npy"
        try:
            frames = np.load(path)
            os.utime(path)
            return frames
        except (FileNotFoundError, ValueError, EOFError):
            frames = sample(read(), self.spec, self.limits)
            self._store(path, frames)
            return frames

    def _store(self, path: Path, frames: np.ndarray) -> None:
        aside = path.with_suffix(f".{os.getpid()}.tmp")
        with aside.open("wb") as file:
            np.save(file, frames)
        self._bytes += aside.stat().st_size
        aside.replace(path)
        if self._bytes > self.max_bytes:
            self._evict()

    def _evict(self) -> None:
        """Drop the least recently used files until nine tenths of the cap are left, so that not every miss has to."""
        held = sorted((path.stat().st_mtime_ns, path.stat().st_size, path) for path in self.folder.glob("*.npy"))
        self._bytes = sum(size for _, size, _ in held)
        for _, size, path in held:
            if self._bytes <= 0.9 * self.max_bytes:
                return
            path.unlink(missing_ok=True)
            self._bytes -= size
