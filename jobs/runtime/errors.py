"""Failures as people meet them: one clear line, and an exit code that a scheduler can act on.

0 done (nothing to do is done) | 1 crash, or a store or process that went away: running it again may help
2 wrong usage, configuration or a damaged file: somebody has to change something | 3 a data-quality gate | 130 Ctrl-C
"""

from __future__ import annotations

import errno
import os
import traceback
from contextlib import suppress
from subprocess import TimeoutExpired
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError, Py4JNetworkError
from pyspark import SparkContext
from pyspark.errors import PySparkException, PythonException

from conf.settings import SettingsError
from lake import storage
from lake.commit import Fenced
from lake.registry import RegistryError
from lake.storage import Damaged, StoreError
from lake.table import LakeError
from lake.waves import Held, Superseded


class UsageError(ValueError):
    """The person or the configuration asked for something that cannot be done; the message says what to do instead."""


class SessionError(RuntimeError):
    """Spark cannot start as configured."""


class Doubted(RuntimeError):
    """A gate: what was asked for can be done and should not be, by the figures; somebody has to decide."""


class EnginesDie(RuntimeError):
    """Engines die over whatever they are given: that is no video's fault."""


_ASKED_WRONGLY = (UsageError, SettingsError, SessionError, RegistryError, LakeError, Damaged)
_WENT_AWAY = (StoreError, Superseded, Fenced, EnginesDie)
# What Python says of a JVM that was killed: nobody is at the other end.
_NOBODY_THERE = (Py4JNetworkError, ConnectionError, EOFError)
_DIES_WITHIN_S = 2.0
# In what Java says of a file.
_DAMAGED = ("not a Parquet file", "Checksum error", "footer is too large", "can not read class org.apache.parquet")


def explain(error: BaseException) -> tuple[str, int]:
    """What to print for a failure and how to exit; an unforeseen one is a crash with its trace."""
    if isinstance(error, _ASKED_WRONGLY):
        return str(error), 2
    if isinstance(error, (Held, Doubted)):
        return str(error), 3
    if isinstance(error, _WENT_AWAY):
        return str(error), 1
    if isinstance(error, KeyboardInterrupt):
        return "stopped; what is staged is published by the next run, the rest is pending again", 130
    if _jvm_is_gone(error):
        return (
            "Spark's JVM is gone (killed, perhaps for want of memory): what is staged is published by the next run, the "
            "rest is pending again"
        ), 1
    if full := _store_failure(error):
        return full, 1
    if found := _unreadable(error):
        return found
    if worker_lost(error):
        return (
            "Spark lost a task's worker process again and again (killed, perhaps for want of memory): what is staged is "
            "published by the next run, the rest is pending again; run the job once more"
        ), 1
    return f"crashed: {summary(error)}", 1


def summary(error: BaseException) -> str:
    """Kind and first line of a failure: what is left of pages of traces."""
    said = _raised_by_udf(error) if isinstance(error, PythonException) else str(error).strip()
    java = java_causes(error)
    if java and not isinstance(error, PySparkException):
        said = f"{java[-1].getClass().getSimpleName()}: {java[-1].getMessage()}"
    first = said.splitlines()[0] if said else ""
    return f"{type(error).__name__}: {first}"[:500]


def trace(error: BaseException) -> str:
    """Where a crash happened, for a developer: Python's frames, without the JVM's pages."""
    return "".join(traceback.format_tb(error.__traceback__))


def java_causes(error: BaseException) -> list[Any]:
    """The Java exceptions behind a failure, outermost first; none where it is Python's own or the JVM is gone."""
    cause = error.java_exception if isinstance(error, Py4JJavaError) else getattr(error, "_origin", None)
    found: list[Any] = []
    try:
        while cause is not None and len(found) < 20:
            found.append(cause)
            cause = cause.getCause()
    except (Py4JError, ConnectionError, EOFError):  # the JVM itself went away
        return []
    return found


def _jvm_is_gone(error: BaseException) -> bool:
    """Whether there is no JVM any more. Of a call that was cut off py4j says no more than that there was an error."""
    if isinstance(error, _NOBODY_THERE):
        return True
    process = getattr(SparkContext._gateway, "proc", None)  # none under spark-submit: there we would be gone with it
    if type(error) is not Py4JError or process is None:
        return False
    with suppress(TimeoutExpired):
        process.wait(_DIES_WITHIN_S)
    return process.returncode is not None


def worker_lost(error: BaseException) -> bool:
    """Whether a stage failed because a task's process went away, the worker alone or the whole executor.

    A worker that raised is a PythonException. Of one that vanished Spark's last cause is the end of its stream; of an
    executor there is no cause at all.
    """
    if isinstance(error, PythonException) or not isinstance(error, (Py4JJavaError, PySparkException)):
        return False
    kinds = [cause.getClass().getSimpleName() for cause in java_causes(error)]
    return kinds[:1] == ["SparkException"] and (len(kinds) == 1 or kinds[-1] == "EOFException")


def _store_failure(error: BaseException) -> str | None:
    """A disk that Spark itself could not write to; the operating system's words are all that Java keeps of it."""
    causes = java_causes(error)
    for cause in causes:
        if cause.getClass().getName() in ("java.io.IOException", "java.nio.file.FileSystemException"):
            said = str(cause.getMessage())
            for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                if os.strerror(number) in said:
                    return f"{_written_to(causes)}: cannot be written: {storage.cause(OSError(number, said))}"
    return None


def _unreadable(error: BaseException) -> tuple[str, int] | None:
    """A file that Spark could not read: gone or damaged, which somebody has to mend, or a store that does not give it."""
    causes = java_causes(error)
    for cause in causes:
        if not cause.getClass().getSimpleName().startswith("Spark"):
            continue
        condition, path = str(cause.getCondition()), cause.getMessageParameters().get("path")
        if not condition.startswith("FAILED_READ_FILE") or not path:
            continue
        said = next(iter(str(causes[-1].getMessage()).splitlines()), "").replace(f"{path} ", "it ")[:200]
        path = path.removeprefix("file:")
        if condition.endswith("FILE_NOT_EXIST"):
            remedy = (
                "put it back from a copy of the lake, or RESTORE its table (Delta) to a version that did not have it"
            )
            return f"{path}: expected a data file of a table, found none: {remedy}", 2
        if any(sign in said for sign in _DAMAGED):
            return (
                f"{path}: expected a data file of a table, found a damaged one ({said}): put a whole copy in its place",
                2,
            )
        return f"{path}: cannot be read: {said}", 1
    return None


def _written_to(causes: list[Any]) -> str:
    """What a stage was writing when it failed; Spark's scratch space where that was no folder of a table."""
    for cause in causes:
        if cause.getClass().getSimpleName() == "SparkException" and (path := cause.getMessageParameters().get("path")):
            return path.removeprefix("file:")
    return "a file of Spark's own (in spark.local.dir, or in the lake's staging)"


def _raised_by_udf(error: BaseException) -> str:
    """The last line of the worker's traceback, which is all of it that tells what happened."""
    lines = [line.strip() for line in str(error).partition("JVM stacktrace")[0].splitlines() if line.strip()]
    return lines[-1] if lines else ""
