"""What waves and their files are called: the third wave of a run is <run>.w00003, its files <run>.w00003-<16 hex digits>."""

from __future__ import annotations

import re

_WAVE = r"w\d{5}"
# With a point and a number of its own before it while it is written.
_FILE = re.compile(rf"(?:\.[0-9a-f]+\.)?(.+\.{_WAVE})-[0-9a-f]{{16}}\.parquet")


def wave_name(number: int) -> str:
    """A run's wave, counted from 1; what a run writes beside its waves is of number 0."""
    return f"w{number:05d}"


def is_wave_name(name: str) -> bool:
    return re.fullmatch(_WAVE, name) is not None


def wave_id(run_id: str, number: int) -> str:
    """The same by its full name, as it is in the tables."""
    return f"{run_id}.{wave_name(number)}"


def run_of(wave_id: str) -> str:
    """The run that a wave belongs to."""
    return wave_id.rpartition(".")[0]


def wave_of(file: str) -> str | None:
    """The wave that wrote a file, from its name; None for files of strangers."""
    found = _FILE.fullmatch(file.rpartition("/")[2])
    return found[1] if found else None
