"""The clips of a batch while training: from the local cache, or decoded by the pool with its limits.

A file that cannot be decoded, or that kills its decoder, costs that file, and is named once. A store that does not answer
is no file's fault: the training stops, and goes on from its last checkpoint.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from operator import attrgetter
from types import TracebackType

from models.language.terminal import harmless
from models.training.lessons import Lesson
from models.video.cache import FrameCache
from models.video.clip import Clip
from models.video.container import MediaError
from models.video.pool import DecodePool, DecodeSettings

_ENOUGH = 8  # failures before the first success, or of the store in a row


class NothingDecodes(ValueError):
    """Not one file could be decoded so far, at so many tries that it is no file's fault."""


class StoreSilent(RuntimeError):
    """The store did not answer for so many videos in a row that it is no video's fault."""


class Clips:
    """A context manager: its decoders end with it.

    decode: gives the clip of (uri, video_id), in a child process; see DecodePool.
    """

    def __init__(self, cache: FrameCache, decode: Callable[[tuple[str, str]], Clip], settings: DecodeSettings) -> None:
        self._cache, self._pool = cache, DecodePool(decode, settings)
        self._any, self._failures, self._named, self._silent = False, 0, set[str](), 0

    def of(self, lessons: Sequence[Lesson]) -> list[Clip | MediaError]:
        """What the model is shown of each, or why there is nothing to show. Raises NothingDecodes, StoreSilent."""
        found: dict[str, Clip | MediaError] = {}
        for lesson in lessons:
            if (held := self._cache.get(lesson.video_id)) is not None:
                found[lesson.video_id] = held
        missing = {lesson.video_id: lesson for lesson in lessons if lesson.video_id not in found}
        for lesson, clip in self._pool.map(missing.values(), argument=attrgetter("uri", "video_id")):
            found[lesson.video_id] = clip
            if isinstance(clip, Clip):
                self._cache.put(lesson.video_id, clip)
            self._silent = self._silent + 1 if isinstance(clip, MediaError) and clip.reason == "unreachable" else 0
            if self._silent == _ENOUGH:
                raise StoreSilent(f"{_ENOUGH} videos in a row cannot be reached; the last of them, {clip}")
        made = [found[lesson.video_id] for lesson in lessons]
        self._tell(lessons, made)
        return made

    def _tell(self, lessons: Sequence[Lesson], made: Sequence[Clip | MediaError]) -> None:
        self._any = self._any or any(isinstance(clip, Clip) for clip in made)
        for lesson, clip in zip(lessons, made, strict=True):
            if isinstance(clip, Clip):
                continue
            self._failures += 1
            if self._failures >= _ENOUGH and not self._any:
                raise NothingDecodes(
                    f"expected frames of some of the first {_ENOUGH} videos, found none; the last of them, {lesson.uri}: "
                    f"{clip.reason}: {clip}"
                )
            if lesson.video_id not in self._named:
                self._named.add(lesson.video_id)
                print(
                    harmless(f"left out of the training: {lesson.uri}: {clip.reason}: {clip}"),
                    file=sys.stderr,
                    flush=True,
                )

    def __enter__(self) -> Clips:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.close()
