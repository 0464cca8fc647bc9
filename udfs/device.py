"""The GPU of a task: one engine sees it, and no other one."""

from __future__ import annotations

import os
import sys


def claim_device() -> None:
    """Show the engine the GPU that Spark gave this task, and no other: Spark itself only tells the address."""
    from pyspark import TaskContext  # not at import time: this module is imported where there is no Spark, too

    context = TaskContext.get()
    gpu = context.resources().get("gpu") if context else None
    if gpu is None:
        return
    addresses = ",".join(gpu.addresses)
    if "torch" in sys.modules and os.environ.get("CUDA_VISIBLE_DEVICES") != addresses:
        raise RuntimeError(f"torch was imported before this worker learnt its GPU ({addresses}); start a fresh worker")
    os.environ["CUDA_VISIBLE_DEVICES"] = addresses
