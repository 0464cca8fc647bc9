"""The Spark session of a job: Delta, UTC, workers that can import this project, and a quiet terminal."""

from __future__ import annotations

import atexit
import getpass
import hashlib
import logging
import os
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark import SparkConf, SparkContext, accumulators
from pyspark.errors import PySparkRuntimeError
from pyspark.java_gateway import launch_gateway
from pyspark.logger import PySparkLogger
from pyspark.sql import SparkSession

from conf.sections import CONF, Spark
from jobs.runtime import pulse
from jobs.runtime.errors import SessionError
from jobs.runtime.stop import heard
from lake.lease import boot, start_ticks

PROJECT = Path(__file__).resolve().parents[2]
DELTA = "io.delta:delta-spark_4.1_2.13:4.4.0"

_ALWAYS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    # Small batches: the first video reaches its engine at once, and the engine streams across batches anyway.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "32",
    "spark.python.worker.reuse": "true",
    # Where in Python a column was made is told with some errors, and costs several calls of the JVM for each column.
    "spark.python.sql.dataFrameDebugging.enabled": "false",
    # A second copy of a task would run the model twice.
    "spark.speculation": "false",
    "spark.sql.parquet.compression.codec": "zstd",
    # The names of folders are ids and days as they are written, never numbers.
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",  # one spelling for Spark, delta-rs and boto3
}
# Engines read these when they are first imported, in the workers.
_WORKER_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def start(name: str, spark: Spark) -> SparkSession:
    """A session with Delta. Under spark-submit its properties win; otherwise the site's properties file applies.

    What the JVM and its workers print goes to `log_file`: of a job that fails it is the place to look.
    """
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ  # spark-submit's own properties are with its JVM
    conf = SparkConf()
    if not submitted:
        for key, value in (jars(spark.jars_dir) | properties(spark.properties)).items():
            conf.set(key, value)
        conf.set("spark.local.dir", str(_own_scratch(conf.get("spark.local.dir"))))
        os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
        paths = [str(PROJECT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    for key, value in _ALWAYS.items():
        conf.set(key, value)
    for key, value in _WORKER_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
        conf.set(f"spark.executorEnv.{key}", value)
    with heard():  # the context's handler calls the JVM out of the signal, in the middle of another call: both break
        if SparkContext._active_spark_context is None:
            gateway = None if submitted else launch(conf, log_file())
            SparkContext(conf=conf.setAppName(f"deepintuit {name}"), gateway=gateway)
            # Under spark-submit the JVM has started us: without us, this run's lease runs out.
            pulse.watch(SparkContext._jvm, partial(os._exit, 1) if submitted else abandon)
    session = SparkSession.builder.appName(f"deepintuit {name}").config(conf=conf).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    for logger in ("DataFrameQueryContextLogger", "SQLQueryContextLogger"):  # JVM traces as JSON beside every exception
        PySparkLogger.getLogger(logger).disabled = True
    logging.getLogger().addFilter(_not_of_py4j)
    for server in (accumulators.AccumulatorTCPServer, accumulators.AccumulatorUnixServer):
        server.handle_error = _said_elsewhere  # type: ignore[assignment, method-assign]
    try:
        java_class(session, "io.delta.sql.DeltaSparkSessionExtension")
    except Py4JJavaError:
        raise SessionError(
            "Delta's jars are not on Spark's class path: run `make setup`, give spark-submit "
            f"--packages {DELTA}, or point spark.jars_dir at a folder that holds them"
        ) from None
    return session


def java_class(session: SparkSession, name: str) -> Any:
    """A class of the JVM behind a session. Raises Py4JJavaError where it has none of that name."""
    jvm: Any = session._jvm
    return jvm.java.lang.Class.forName(name)


def launch(conf: SparkConf, log: Path):
    """A JVM whose words, and those of its Python workers, go to a file. Raises SessionError where it does not start."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        try:
            return launch_gateway(conf, {"stdout": file, "stderr": file})
        except PySparkRuntimeError:
            raise SessionError(f"Spark's JVM did not start; it says why in {log}") from None


def log_file() -> Path:
    """Where the JVM of this process and its workers write."""
    return folder() / "logs" / f"{_own_name()}.log"


def folder() -> Path:
    """What this user's runs keep on this host beside their lakes: Spark's scratch space and logs."""
    return Path(tempfile.gettempdir()) / f"deepintuit-{getpass.getuser()}"


def _own_scratch(site: str | None) -> Path:
    """Spark's scratch space, named after this process so that what is left of a killed one can be told."""
    own = (Path(site) if site else folder() / "scratch") / _own_name()
    own.mkdir(parents=True, exist_ok=True)
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return own


def _own_name() -> str:
    """Names this process among all that may share a temporary folder: containers count their processes each for itself."""
    return f"{os.getpid()}-{start_ticks(os.getpid())}-{_here()}"


def _here() -> str:
    return hashlib.sha256(boot().encode()).hexdigest()[:8]


def remove_leftovers(site: str | None, log_hours: float) -> int:
    """Remove what processes that are gone left: their scratch space, and logs older than so many hours. Returns bytes.

    Of a process of another container, or of before the machine's last start, nobody here knows whether it is gone: what it
    left goes once nothing in it has changed for that long.
    """
    freed = 0
    scratch = Path(site) if site else folder() / "scratch"
    gone = partial(_owner_is_gone, hours=log_hours)
    for place in filter(gone, scratch.glob("*-*")):
        freed += sum(file.stat().st_size for file in place.rglob("*") if file.is_file() and not file.is_symlink())
        shutil.rmtree(place, ignore_errors=True)
    for log in filter(gone, (folder() / "logs").glob("*.log")):
        if log.stat().st_mtime < time.time() - log_hours * 3600:
            freed += log.stat().st_size
            log.unlink(missing_ok=True)
    return freed


def _owner_is_gone(place: Path, hours: float) -> bool:
    """Whether this is named after a process of ours, and that has ended."""
    pid, ticks, *where = place.stem.split("-")
    if not (pid.isdigit() and ticks.isdigit()):
        return False
    if where == [_here()]:
        return start_ticks(int(pid)) != int(ticks)
    changed = max((file.stat().st_mtime for file in (place, *place.rglob("*")) if file.exists()), default=0.0)
    return changed < time.time() - hours * 3600


def _not_of_py4j(record: logging.LogRecord) -> bool:
    """py4j tells the root logger, with a traceback, of a JVM that went away under a call; that error is raised, too."""
    return record.module != "java_gateway"


def _said_elsewhere(*_: object) -> None:
    """PySpark's accumulators print a traceback where the JVM goes away; the call that was under way raises it, too."""


def abandon() -> None:
    """End the JVM of this process at once: in an orderly stop it complains at length of what it had to leave."""
    process = getattr(SparkContext._gateway, "proc", None)  # none under spark-submit: there the JVM started us
    if process is not None:
        process.kill()


def check_slots(conf: SparkConf, gpus: int) -> None:
    """With GPUs, an executor must hold those of one engine and one task slot: a second one would fight over their memory.

    Raises SessionError otherwise; without GPUs any number of slots will do.
    """
    if conf.get("spark.executor.resource.gpu.amount") is None:
        return
    found = [float(conf.get(f"spark.{who}.resource.gpu.amount", "0") or 0) for who in ("executor", "task")]
    if found != [gpus, gpus]:  # Spark runs as many tasks in an executor as its GPUs suffice for
        raise SessionError(
            f"expected engine.gpus={gpus} per executor and per task, so that an executor runs one engine, found "
            f"{found[0]:g} per executor and {found[1]:g} per task; set spark.executor.resource.gpu.amount and "
            f"spark.task.resource.gpu.amount to {gpus}, as conf/spark/prod.conf shows"
        )


def properties(name: str | None) -> dict[str, str]:
    """A file of Spark properties, as spark-submit --properties-file reads it: key, white space, value."""
    if name is None:
        return {}
    path = CONF / name
    if not path.is_file():
        raise SessionError(f"spark.properties: expected a file of Spark properties, found none at {path}")
    lines = (line.strip() for line in path.read_text().splitlines())
    pairs = (line.split(maxsplit=1) for line in lines if line and line[0] != "#")
    return {key: "".join(value) for key, *value in pairs}


def jars(folder: str | None) -> dict[str, str]:
    """Delta from a local folder; from Maven where no folder is named."""
    if folder is None:
        return {"spark.jars.packages": DELTA}
    path = Path(folder) if Path(folder).is_absolute() else PROJECT / folder
    jars = sorted(str(jar) for jar in path.glob("*.jar"))
    if not any("delta-spark" in jar for jar in jars):
        raise SessionError(f"spark.jars_dir: expected Delta's jars in {path}, found {len(jars)} jars; run `make setup`")
    return {"spark.jars": ",".join(jars), "spark.driver.extraClassPath": os.pathsep.join(jars)}
