"""Decoding in child processes, so that a hostile file costs that file and nothing else.

Children are spawned, import PyAV and numpy only (under a second), and run under a memory limit and a wall-clock limit
per file. A child that dies or hangs is replaced; its file comes back as a MediaError like any other refusal.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, TimeoutError, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from models.video.container import MediaError

Item = TypeVar("Item")
Result = TypeVar("Result")

_PR_SET_PDEATHSIG = 1  # prctl(2)
_LOOK_S = 1.0  # pebble does not tell when it gives up, it has to be asked
_BREAKS = 3  # of the pool as a whole, with no result between them

LOST = ("decoder_crashed", "decoder_timeout", "decoder_memory")  # reasons beside frames.REASONS


class DecoderLost(MediaError):
    """A file that took its decoder with it. `reason` is one of LOST."""

    def __init__(self, reason: str, message: str) -> None:
        Exception.__init__(self, message)
        self.reason = reason

    def __reduce__(self):
        return DecoderLost, (self.reason, str(self))


@dataclass(frozen=True)
class DecodeSettings:
    """How decoding runs; where a file's frames come from does not depend on it.

    workers: child processes; timeout_s: wall-clock seconds per file, reading included; memory_bytes: address space of
    one child beside what it begins with; ahead: files decoded or being decoded beyond those already taken.
    """

    workers: int = 1
    timeout_s: float = 60.0
    memory_bytes: int = 4 * 1024**3
    ahead: int = 8


class DecodePool:
    """Applies `work` to items in child processes; a context manager, no child survives it.

    work: picklable; called as work(item), or work(argument(item)) where `map` is told how to find the argument.
    """

    def __init__(self, work: Callable[[Any], Result], settings: DecodeSettings) -> None:
        self._work, self._settings = work, settings
        self._pool = self._fresh_pool()

    def _fresh_pool(self) -> ProcessPool:
        return ProcessPool(
            max_workers=self._settings.workers,
            max_tasks=500,  # decoders leak: a fresh child now and then costs nothing
            initializer=_prepare_child,
            initargs=(self._settings.memory_bytes, os.getpid()),
            context=multiprocessing.get_context("spawn"),
        )

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill the children, whatever they are doing."""
        self._pool.stop()
        self._pool.join()

    def map(
        self, items: Iterable[Item], argument: Callable[[Item], Any] | None = None
    ) -> Iterator[tuple[Item, Result | MediaError]]:
        """Yield (item, result) in the order of completion; a refused file's result is its MediaError. A child that is killed
        from outside (by a host that is out of memory) says nothing of its file: that comes last, once more, alone.

        `items` is pulled only as far ahead as the settings allow. An error of the pool itself, or raised by `items`,
        is raised here.
        """
        waiting: dict[Future, Item] = {}
        suspects: list[Item] = []  # whose decoder was killed from outside; each is tried once more, alone
        source, ended, broken, alone = iter(items), False, 0, False
        while waiting or suspects or not ended:
            if ended and not waiting:
                alone = True
                suspect = suspects.pop()
                waiting[self._schedule(suspect, argument)] = suspect
            room = not ended and len(waiting) < self._settings.workers + self._settings.ahead
            if room:
                try:
                    item = next(source)
                except StopIteration:
                    ended = True
                    continue
                waiting[self._schedule(item, argument)] = item
            # With room left what is done is handed on, never waited for: a slow source must not be slowed further.
            done, _ = wait(waiting, timeout=0 if room else _LOOK_S, return_when=FIRST_COMPLETED)
            for future in done:
                if isinstance(future.exception(), BrokenProcessPool):
                    continue
                broken = 0
                if not alone and _is_killed(future.exception()):
                    suspects.append(waiting.pop(future))
                else:
                    yield waiting.pop(future), self._outcome(future)
            if not self._pool.active:
                # A child was killed from outside while it had nothing to do: no file's fault, and the pool takes no more.
                broken += 1
                if broken == _BREAKS:
                    raise RuntimeError(f"decoders were killed {broken} times before they had begun")
                self.close()
                self._pool = self._fresh_pool()
                waiting = {self._schedule(item, argument): item for item in waiting.values()}

    def _schedule(self, item: Item, argument: Callable[[Item], Any] | None) -> Future:
        task = partial(_guarded, self._work, argument(item) if argument else item)
        try:
            return self._pool.schedule(task, timeout=self._settings.timeout_s)
        except RuntimeError as error:  # the pool is broken: see map
            failed: Future = Future()
            failed.set_exception(BrokenProcessPool(str(error)))
            return failed

    def _outcome(self, future):
        try:
            return future.result()
        except TimeoutError:
            return DecoderLost("decoder_timeout", f"killed after {self._settings.timeout_s:g} s without a result")
        except ProcessExpired as error:
            return DecoderLost("decoder_crashed", f"the decoder died with exit code {error.exitcode}")


def _is_killed(error: BaseException | None) -> bool:
    return isinstance(error, ProcessExpired) and error.exitcode in (-signal.SIGKILL, -signal.SIGTERM)


def _guarded(work: Callable[[Any], Result], argument: Any) -> Result | MediaError:
    """Runs in the child: whatever Python error a file provokes is that file's."""
    try:
        return work(argument)
    except MediaError as error:
        return error
    except MemoryError:
        return DecoderLost("decoder_memory", "the decoder ran out of the memory it is allowed")
    except Exception as error:
        return MediaError("decode_error", f"{type(error).__name__}: {error}")


def _mapped() -> int:
    """Address space of this process: a child begins with the main script of its parent, whatever that imports."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except FileNotFoundError:
        return 0


def _prepare_child(memory_bytes: int, owner: int) -> None:
    if sys.platform == "linux":  # a child that hangs in a decoder would outlive a killed Spark worker for ever
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != owner:
            os._exit(1)
    most = _mapped() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
