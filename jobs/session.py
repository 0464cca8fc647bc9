"""The Spark session of a job: Delta, UTC, and workers that can import this project."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path

import pyspark
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from conf.settings import CONF, Spark

PROJECT = Path(__file__).resolve().parent.parent
_SPARK_HOME = Path(pyspark.__file__).parent
DELTA = "io.delta:delta-spark_4.1_2.13:4.4.0"

_ALWAYS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    # Small batches: the first video reaches its engine at once, and the engine streams across batches anyway.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "32",
    "spark.python.worker.reuse": "true",
    # A second copy of a task would run the model twice.
    "spark.speculation": "false",
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",  # one spelling for Spark, delta-rs and boto3
}
# Engines read these when they are first imported, in the workers.
_WORKER_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


class SessionError(RuntimeError):
    """Spark cannot start as configured."""


def start(name: str, spark: Spark) -> SparkSession:
    """A session with Delta. Under spark-submit its properties win; otherwise the site's properties file applies."""
    conf = SparkConf()
    # spark-submit's own properties are with its JVM; it tells Python the way there.
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        for key, value in (_jars(spark.jars_dir) | properties(spark.properties)).items():
            conf.set(key, value)
        os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
        paths = [str(PROJECT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    for key, value in _ALWAYS.items():
        conf.set(key, value)
    for key, value in _WORKER_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
        conf.set(f"spark.executorEnv.{key}", value)
    session = SparkSession.builder.appName(f"deepintuit {name}").config(conf=conf).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    # PySpark's own handler calls the JVM out of the signal, in the middle of a call that is under way: both break.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _interrupted)
    try:
        session._jvm.java.lang.Class.forName("io.delta.sql.DeltaSparkSessionExtension")
    except Exception:
        raise SessionError(
            "Delta's jars are not on Spark's class path: run `make setup`, give spark-submit "
            f"--packages {DELTA}, or point spark.jars_dir at a folder that holds them"
        ) from None
    return session


def _interrupted(*_: object) -> None:
    logging.disable(logging.CRITICAL)  # py4j would log the traceback of the call that was under way
    raise KeyboardInterrupt


def abandon() -> None:
    """End the JVM of this process at once: in an orderly stop it complains at length of what it had to leave."""
    process = getattr(SparkContext._gateway, "proc", None)  # none under spark-submit: there the JVM started us
    if process is not None:
        process.kill()


def check_slots(conf: SparkConf) -> None:
    """With GPUs, an executor must hold one of them and one task slot: a second engine would fight over its memory.

    Raises SessionError otherwise; without GPUs any number of slots will do.
    """
    if conf.get("spark.executor.resource.gpu.amount") is None:
        return
    gpus = float(conf.get("spark.executor.resource.gpu.amount")), float(conf.get("spark.task.resource.gpu.amount", "0"))
    if gpus != (1, 1):  # with whole GPUs Spark runs as many tasks in an executor as it has GPUs
        raise SessionError(
            f"expected one GPU and one task slot per executor, found {gpus[0]:g} GPUs and {gpus[1]:g} per task; "
            "conf/spark/prod.conf shows how: spark.executor.resource.gpu.amount and spark.task.resource.gpu.amount are 1"
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


def _jars(folder: str | None) -> dict[str, str]:
    """Delta from a local folder; from Maven where no folder is named."""
    if folder is None:
        return {"spark.jars.packages": DELTA}
    path = Path(folder) if Path(folder).is_absolute() else PROJECT / folder
    jars = sorted(str(jar) for jar in path.glob("*.jar"))
    if not any("delta-spark" in jar for jar in jars):
        raise SessionError(f"spark.jars_dir: expected Delta's jars in {path}, found {len(jars)} jars; run `make setup`")
    return {"spark.jars": ",".join(jars), "spark.driver.extraClassPath": os.pathsep.join(jars)}


def fetch_jars(folder: Path) -> None:
    """Let Spark's own resolver bring Delta's jars into a folder, once, for later starts without Maven."""
    with tempfile.TemporaryDirectory() as ivy:
        conf = SparkConf().set("spark.master", "local[1]").set("spark.ui.enabled", "false")
        conf.set("spark.jars.packages", DELTA).set("spark.jars.ivy", ivy)
        SparkSession.builder.config(conf=conf).getOrCreate().stop()
        folder.mkdir(parents=True, exist_ok=True)
        own = {_artifact(jar.name) for jar in (_SPARK_HOME / "jars").glob("*.jar")}
        for jar in Path(ivy, "jars").glob("*.jar"):
            if _artifact(jar.name.partition("_")[2]) not in own:  # Ivy writes group_artifact-version.jar
                shutil.copy(jar, folder / jar.name)


def _artifact(jar: str) -> str:
    return re.sub(r"-\d.*$", "", jar)


def write_defaults(folder: Path) -> None:
    """Let a bare spark-submit of this environment start as the local jobs do: with Delta, quietly."""
    conf = _SPARK_HOME / "conf"
    conf.mkdir(exist_ok=True)
    lines = (properties("spark/local.conf") | _jars(str(folder.resolve()))).items()
    (conf / "spark-defaults.conf").write_text("".join(f"{key} {value}\n" for key, value in lines))
    shutil.copy(CONF / "spark" / "log4j2.properties", conf / "log4j2.properties")


if __name__ == "__main__":
    fetch_jars(Path(sys.argv[1]))
    write_defaults(Path(sys.argv[1]))
