"""What contracts have to know of a task: which labels there are, and whether they exclude each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["exclusive", "independent"]


@dataclass(frozen=True)
class LabelSet:
    """slugs: in the order of the task. mode: exclusive (a video has one label) or independent (none, one or several)."""

    slugs: tuple[str, ...]
    mode: Mode = "exclusive"

    @property
    def independent(self) -> bool:
        return self.mode == "independent"
