"""Which changes of the settings would make something fit, the mildest of each kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from conf.sections import Settings

Change = dict[str, Any]  # dotted name of a setting -> value

_PROCESSES = (2, 4, 8, 16, 32, 64)


def changed(settings: Settings, change: Change) -> Settings:
    """The settings with some of them changed."""
    for name, value in change.items():
        section, _, key = name.partition(".")
        part = getattr(settings, section).model_copy(update={key: value})
        settings = settings.model_copy(update={section: part})
    return settings


def that_fit(
    settings: Settings, levers: Sequence[Sequence[Change]], fits: Callable[[Settings], bool]
) -> tuple[list[Change], bool]:
    """Changes with which it fits, and whether one of them is enough or all are needed; none where nothing tried fits.

    levers: changes of one kind each, the mildest first; kinds that cost little before those that change what is learned.
    """
    alone = [found for lever in levers if (found := _mildest(settings, lever, fits))]
    if alone:
        return alone, True
    needed: dict[int, Change] = {}
    for number, lever in enumerate(levers):
        needed[number] = lever[-1] if lever else {}
        if fits(_all(settings, needed)):
            break
    else:
        return [], False
    for number in sorted(needed, reverse=True):  # milder, or not at all, as the others allow: the dearest first
        needed[number] = {}
        needed[number] = _mildest(_all(settings, needed), [{}, *levers[number]], fits) or {}
    return [change for change in needed.values() if change], False


def _mildest(settings: Settings, lever: Sequence[Change], fits: Callable[[Settings], bool]) -> Change | None:
    return next((change for change in lever if fits(changed(settings, change))), None)


def _all(settings: Settings, changes: dict[int, Change]) -> Settings:
    for change in changes.values():
        settings = changed(settings, change)
    return settings


def smaller_pieces(stage: str, settings: Settings) -> list[Change]:
    return [{f"{stage}.micro_batch": size} for size in range(getattr(settings, stage).micro_batch - 1, 0, -1)]


def more_processes(settings: Settings) -> list[Change]:
    now = settings.training
    numbers = [now.processes, *(number for number in _PROCESSES if number > now.processes)]
    known = now.processes if now.parallel == "fsdp" else 1
    return [{"training.parallel": "fsdp", "training.processes": number} for number in numbers if number > known]


def other_cache(name: str, now: int, least: int) -> list[Change]:
    """A smaller cache, or a larger one where it does not hold one sequence. now, least: bytes, least: of that sequence."""
    now_mb, least_mb = now >> 20, max(16, -(-least >> 20))
    if now_mb <= least_mb:
        return [{name: least_mb}] if now_mb < least_mb else []
    whole = [size for size in range(now_mb // 1024 * 1024, least_mb, -1024) if size < now_mb]
    return [{name: size} for size in (*whole, least_mb)]


def halves(name: str, now: int, least: int) -> list[Change]:
    """now / 2, now / 4 and so on, down to least."""
    found = []
    while (now := now // 2) >= least:
        found.append({name: now})
    return found
