"""How much a run may take on: videos and time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from jobs.runtime.errors import UsageError


@dataclass(frozen=True)
class Budget:
    """At most so many videos, and no new wave that would end after the deadline."""

    max_videos: int | None = None
    ends_at: datetime | None = None

    def seconds_left(self) -> float | None:
        """Seconds before the deadline, 0 once it is over; None without one."""
        return None if self.ends_at is None else max(0.0, (self.ends_at - datetime.now(UTC)).total_seconds())

    def allows(self, seconds: float) -> bool:
        """Whether work of this length, started now, ends before the deadline."""
        return self.ends_at is None or datetime.now(UTC) + timedelta(seconds=seconds) <= self.ends_at


def parse_deadline(text: str, now: datetime) -> datetime:
    """ "90m", "2h", "45s" from now, or the next "06:30" by the local clock. Raises UsageError for anything else."""
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text):
        return now + timedelta(seconds=float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]])
    if match := re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text):
        local = now.astimezone().replace(tzinfo=None)  # naive: days are as long as the local clock makes them
        wanted = local.replace(hour=int(match[1]), minute=int(match[2]), second=0, microsecond=0)
        return (wanted if wanted > local else wanted + timedelta(days=1)).astimezone(UTC)
    raise UsageError(f"--deadline {text}: expected a length such as 90m, 2h or 45s, or a time of day such as 06:30")
