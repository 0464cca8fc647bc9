"""An engine that takes its time over each rollout, so that a test can come between."""

from __future__ import annotations

import time

from benchmarks.null_engine import NullEngine

KIND = "slow_engine:SlowEngine"


class SlowEngine(NullEngine):
    name = "slow"

    def submit(self, *arguments, **named) -> None:
        time.sleep(0.3)
        super().submit(*arguments, **named)
