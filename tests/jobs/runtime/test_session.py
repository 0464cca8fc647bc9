"""Starting Spark: properties files, jars, and what a GPU executor must look like."""

from __future__ import annotations

import pytest
from jobs.runtime.session import SessionError, check_slots, properties
from jobs.runtime.session import _jars as jars
from pyspark import SparkConf


def conf(**changed: str) -> SparkConf:
    """prod.conf with some properties changed."""
    made = SparkConf(loadDefaults=False)
    for key, value in {**properties("spark/prod.conf"), **changed}.items():
        made.set(key, value)
    return made


def test_the_production_properties_give_one_engine_an_executor():
    check_slots(conf())


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("spark.executor.resource.gpu.amount", "2", "found 2 GPUs and 1 per task"),
        ("spark.task.resource.gpu.amount", "0.25", "0.25 per task"),
    ],
)
def test_two_engines_on_one_gpu_are_refused(key, value, found):
    with pytest.raises(SessionError, match=found):
        check_slots(conf(**{key: value}))


def test_without_gpus_any_number_of_slots_will_do(spark):
    check_slots(spark.sparkContext.getConf())


def test_properties_are_read_as_spark_submit_reads_them(tmp_path):
    path = tmp_path / "site.conf"
    path.write_text("# a comment\n\nspark.a   x y \nspark.b\t2\nspark.empty\n")
    assert properties(str(path)) == {"spark.a": "x y", "spark.b": "2", "spark.empty": ""}
    with pytest.raises(SessionError, match="expected a file of Spark properties, found none"):
        properties("spark/none.conf")


def test_a_folder_without_delta_is_refused_and_no_folder_asks_maven(tmp_path):
    with pytest.raises(SessionError, match="expected Delta's jars"):
        jars(str(tmp_path))
    assert set(jars(None)) == {"spark.jars.packages"}
