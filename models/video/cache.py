"""A local, lossless, size-capped cache of sampled clips: while training, a clip is decoded once, not once an epoch."""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from models.video.clip import Clip
from models.video.frames import FrameSpec


class FrameCache:
    """Sampled clips by content and sampling, as .npz files; the least recently used go first when `max_bytes` is full.

    Safe for several processes at once: files are written aside and renamed, and a file that another process dropped is
    simply missing.
    """

    def __init__(self, folder: Path, spec: FrameSpec, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._sampling = hashlib.sha256(repr(sorted(asdict(spec).items())).encode()).hexdigest()[:12]
        folder.mkdir(parents=True, exist_ok=True)
        self._bytes = sum(path.stat().st_size for path in folder.glob("*.npz"))

    def get(self, video_id: str) -> Clip | None:
        """What the model sees of one video; None where it is not here, or damaged.

        video_id: the hash of the content, hence a valid file name.
        """
        path = self._path(video_id)
        try:
            clip = _read(path)
            os.utime(path)
            return clip
        except (FileNotFoundError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            return None

    def put(self, video_id: str, clip: Clip) -> None:
        """Keep what the model sees of one video."""
        path = self._path(video_id)
        aside = path.with_suffix(f".{os.getpid()}.tmp")
        with aside.open("wb") as file:
            times = np.array(clip.times, np.float64)
            np.savez(file, pixels=clip.pixels, times=times, duration=clip.duration, lost=clip.lost)
        self._bytes += aside.stat().st_size
        aside.replace(path)
        if self._bytes > self.max_bytes:
            self._evict()

    def _path(self, video_id: str) -> Path:
        return self.folder / f"{video_id}-{self._sampling}.npz"

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
        return Clip(held["pixels"], held["times"].tolist(), float(held["duration"]), int(held["lost"]))
