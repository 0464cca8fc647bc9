"""Delta's jars, fetched once for later starts without Maven: `make setup` calls `python -m jobs.runtime.jars FOLDER`."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

import pyspark
from pyspark import SparkConf, SparkContext

from conf.sections import CONF
from jobs.runtime.session import DELTA, jars, launch, properties

_SPARK_HOME = Path(pyspark.__file__).parent
_LOG = Path("build/setup.log")


def fetch_jars(folder: Path) -> None:
    """Let Spark's own resolver bring Delta's jars into a folder, once, for later starts without Maven."""
    with tempfile.TemporaryDirectory() as ivy:
        conf = SparkConf().set("spark.master", "local[1]").set("spark.ui.enabled", "false")
        conf.set("spark.jars.packages", DELTA).set("spark.jars.ivy", ivy)
        SparkContext(conf=conf.setAppName("setup"), gateway=launch(conf, _LOG)).stop()
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
    lines = (properties("spark/local.conf") | jars(str(folder.resolve()))).items()
    (conf / "spark-defaults.conf").write_text("".join(f"{key} {value}\n" for key, value in lines))
    shutil.copy(CONF / "spark" / "log4j2.properties", conf / "log4j2.properties")


if __name__ == "__main__":
    fetch_jars(Path(sys.argv[1]))
    write_defaults(Path(sys.argv[1]))
