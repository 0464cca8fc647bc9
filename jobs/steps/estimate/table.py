"""An estimate as lines for people, from its document alone."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import Any

from models.footprint.devices import GIB

_WIDTH, _NAME, _FIGURE = 118, 32, 10


def lines(told: dict[str, Any]) -> Iterator[str]:
    """The table, without a line break at the end of a line."""
    yield from _settings(told)
    model, lake = told["model"], told["lake"]
    yield ""
    yield _row("model", f"{model['folder']}: {model['parameters']:,} parameters, counted from {model['counted_from']}")
    device = told["device"]
    speeds = f"{device['bf16_flops'] / 1e12:,.3g} TFLOP/s, {device['bytes_per_s'] / 1e9:,.0f} GB/s"
    yield _row("device", f"{device['count']} x {device['name']}: {_gib(device['memory_bytes'])} GiB, {speeds}")
    yield from _paragraph("lake", lake["root"])
    if lake["why"]:
        yield from _paragraph("", f"its rows are unknown: {lake['why']}")
    for part in ("rows", "work", "tokens"):
        if told[part]:
            yield ""
            yield part
            yield from (_row(f"  {name.replace('_', ' ')}", _number(value)) for name, value in told[part].items())
    yield ""
    yield from _memory(told["memory"], device)
    yield ""
    yield from _time(told["time"], device)
    yield ""
    yield from _paragraph("assumed", ", ".join(f"{name} {_number(value)}" for name, value in told["assumed"].items()))


def _settings(told: dict[str, Any]) -> Iterator[str]:
    for section, values in told["settings"].items():
        yield from _paragraph(section, "  ".join(f"{name}={_plain(value)}" for name, value in values.items()))
    by_place: dict[str, list[str]] = {}
    for name, place in told["set_by"].items():
        by_place.setdefault(place, []).append(name)
    for place, names in by_place.items():
        yield from _paragraph(f"from {place}" if len(place) < _NAME - 5 else "from a flag", ", ".join(names))


def _memory(memory: dict[str, Any], device: dict[str, Any]) -> Iterator[str]:
    phases = memory["phases"]
    parts = list(dict.fromkeys(part for held in phases.values() for part in held))
    yield _row(f"GiB on one {device['name']}", "".join(f"{phase:>{_FIGURE}}" for phase in phases))
    for part in parts:
        figures = [_gib(held[part]) if part in held else "" for held in phases.values()]
        yield _row(f"  {part}", "".join(f"{figure:>{_FIGURE}}" for figure in figures))
    yield _row("  together", "".join(f"{_gib(sum(held.values())):>{_FIGURE}}" for held in phases.values()))
    verdict = "fits" if memory["fits"] else "does not fit"
    yield _row("", f"{verdict}: {_gib(memory['peak_bytes'])} of {_gib(memory['usable_bytes'])} GiB that can be used")


def _time(time: dict[str, Any], device: dict[str, Any]) -> Iterator[str]:
    yield "time"
    for name, how in time["by"].items():
        hours = time["device_hours_by_part"][name]
        yield _row(f"  {name}", f"{'' if hours is None else f'{_number(hours)} device-hours, '}by {how}")
    for name in ("device_hours", "hours", "device_hours_per_1000_videos", "device_hours_with_every_refill"):
        if name in time:
            yield _row(f"  {name.replace('_', ' ')}", _number(time[name]) + _beside(name, device))


def _beside(name: str, device: dict[str, Any]) -> str:
    return f" on {device['count']} of them" if name == "hours" else ""


def _paragraph(name: str, text: str) -> Iterator[str]:
    first, *more = wrap(text, _WIDTH - _NAME, break_long_words=False, break_on_hyphens=False) or [""]
    yield _row(name, first)
    yield from (_row("", line) for line in more)


def _row(name: str, text: str) -> str:
    return f"{name:<{_NAME}}{' ' if len(name) >= _NAME else ''}{text}".rstrip()


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}" if size >= GIB / 10 else f"{size / GIB:.4f}"


def _number(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.2f}" if value >= 0.01 else f"{value:.2g}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def _plain(value: Any) -> str:
    return str(value).replace(" ", "") if value is not None else "null"
