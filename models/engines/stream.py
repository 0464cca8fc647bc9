"""`generate` and `classify` on top of any engine's `submit` and `step`: the batch is refilled while it runs."""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from models.engines.promise import Classified, Completion, Question, Request, RequestRefused, Sampling, Scored, refused

_WAITING = 4  # requests with their decoded clips held between the source and the engine


class Streaming(ABC):
    """What an engine adds to its `submit`, `ask` and `step` to offer `generate` and `classify`.

    on_step: called after every step with the number of unfinished sequences and whether the input has ended, before the
    batch is refilled; for tests and for measuring. changed: whether it was given other weights than its folder's.
    """

    on_step: Callable[[int, bool], None] | None = None
    changed = False

    @property
    @abstractmethod
    def unfinished(self) -> int:
        """Sequences that were taken in and are not finished."""

    @property
    @abstractmethod
    def full(self) -> bool:
        """Whether more would only wait: a few are taken in beyond what runs, so that a finished one is replaced at once."""

    @abstractmethod
    def submit(self, request: Request, sampling: Sampling, scored: Scored = None, token_logprobs: bool = False) -> None:
        """See promise.Engine."""

    @abstractmethod
    def ask(self, question: Question, codes: Sequence[str]) -> None:
        """See promise.Engine."""

    @abstractmethod
    def step(self) -> list[Completion | Classified]:
        """See promise.Engine."""

    @abstractmethod
    def abandon(self) -> None:
        """Forget what was taken in and is not finished: it must not turn up among what is asked later."""

    def generate(
        self, requests: Iterator[Request], sampling: Sampling, scored: Scored = None, token_logprobs: bool = False
    ) -> Iterator[Completion]:
        take = partial(self.submit, sampling=sampling, scored=scored, token_logprobs=token_logprobs)
        return self._stream(requests, take)

    def classify(self, questions: Iterator[Question], codes: Sequence[str]) -> Iterator[Classified]:
        return self._stream(questions, partial(self.ask, codes=codes))

    def _stream(self, items: Iterable[Any], take: Callable[[Any], None]) -> Iterator[Any]:
        feed = _Feed(items)
        try:
            while True:
                while not feed.ended and not self.full:
                    item = feed.next(block=not self.unfinished)
                    if item is None:
                        break
                    try:
                        take(item)
                    except RequestRefused as error:
                        yield from refused(item, str(error))
                if not self.unfinished:
                    if feed.ended:
                        return
                    continue
                yield from self.step()
                if self.on_step:
                    self.on_step(self.unfinished, feed.ended)
        finally:
            feed.stop()
            self.abandon()


class _Feed:
    """Pulls items in a thread of its own, so that a slow source never blocks a step while work is in flight."""

    _END = object()

    def __init__(self, items: Iterable[Any]) -> None:
        self.ended = False
        self._stopped = threading.Event()
        self._queue: queue.Queue[Any] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._pull, args=(items,), name="engine-feed", daemon=True)
        self._thread.start()

    def next(self, block: bool) -> Any | None:
        """The next item; None if none is there yet or none is left. Raises what the source raised."""
        try:
            item = self._queue.get(block=block)
        except queue.Empty:
            return None
        if item is self._END:
            self.ended = True
            return None
        if isinstance(item, BaseException):
            self.ended = True
            raise item
        return item

    def stop(self) -> None:
        """Let the thread go after the item it is waiting for."""
        self._stopped.set()

    def _pull(self, items: Iterable[Any]) -> None:
        try:
            for item in items:
                if not self._put(item):
                    return
            self._put(self._END)
        except BaseException as error:
            self._put(error)

    def _put(self, item: Any) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
