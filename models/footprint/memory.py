"""Memory of one device by phase and part: what lies there at the same time."""

from __future__ import annotations

from dataclasses import dataclass

Parts = dict[str, int]  # name -> bytes


@dataclass(frozen=True)
class Memory:
    """phases: name -> parts. What is freed before a phase is not among its parts."""

    phases: dict[str, Parts]

    @property
    def worst(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: sum(self.phases[phase].values()))

    @property
    def peak(self) -> int:
        """Bytes of that phase."""
        return sum(self.phases[self.worst].values())
