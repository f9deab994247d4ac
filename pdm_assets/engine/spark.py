"""Spark as the engine: a session by address or in this process, and the Delta tables that it looks after by SQL."""

import datetime as dt
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import types as T

UTC = {"spark.sql.session.timeZone": "UTC"}
USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"
SERVER_CLASS = "org.apache.spark.sql.connect.service.SparkConnectServer"
DELTA_PACKAGE = "io.delta:delta-spark_4.2_2.13:4.4.0"
# What Spark needs to read and write an object store, by the scheme of its addresses, of the release that pyspark's Hadoop is.
# Hadoop names the whole of the AWS SDK, 690 MB; these are the parts that it uses.
AWS_SDK = "software.amazon.awssdk:{}:2.35.4"
STORE_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "file": (),
    "s3a": (
        "org.apache.hadoop:hadoop-aws:3.5.0",
        *(AWS_SDK.format(part) for part in ("s3", "s3-transfer-manager", "sts", "apache-client", "netty-nio-client")),
    ),
    "abfss": ("org.apache.hadoop:hadoop-azure:3.5.0",),
    "gs": ("org.apache.hadoop:hadoop-gcp:3.5.0",),
}
LEFT_OUT = ("software.amazon.awssdk:bundle", "org.apache.hadoop:hadoop-client-api", "org.apache.hadoop:hadoop-client-runtime")


class SparkUnavailable(RuntimeError):
    """No Spark session can be had; the text says why and what to do."""


def delta_conf(cores: int, folder: Path, store: str = "file") -> dict[str, str]:
    """Spark settings of a driver of our own, with Delta tables on a store of that scheme.

    Args:
        cores: of the machine or cluster.
        folder: for Spark's own files.
        store: scheme of the addresses of tables.
    """
    return {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        **UTC,
        "spark.sql.shuffle.partitions": str(2 * cores),
        # 50 by default, which costs 10 s a commit on two cores
        "spark.databricks.delta.snapshotPartitions": "1",
        # Tasks in which VACUUM lists a table: 10,000 by default, minutes each time
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": str(2 * cores),
        # INT96, the default, has no statistics, and other readers do not take it for an instant
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "WARN",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.local.dir": str(folder / "tmp"),
        "spark.jars.packages": ",".join((DELTA_PACKAGE, *STORE_PACKAGES[store])),
        "spark.jars.excludes": ",".join(LEFT_OUT),
        **(s3_conf(os.environ) if store == "s3a" else {}),
    }


def s3_conf(environ: Mapping[str, str]) -> dict[str, str]:
    """Spark settings for S3, from the variables that other clients of AWS read by themselves, as it does credentials."""
    conf = {
        # S3 has no rename: commits are safe because one driver makes them all.
        "spark.delta.logStore.s3a.impl": "io.delta.storage.S3SingleDriverLogStore",
        "spark.hadoop.fs.s3a.path.style.access": "false",
    }
    if endpoint := environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL"):
        # Of a store of one's own: it has no name of its own for each bucket.
        conf |= {"spark.hadoop.fs.s3a.endpoint": endpoint, "spark.hadoop.fs.s3a.path.style.access": "true"}
    if region := environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"):
        conf["spark.hadoop.fs.s3a.endpoint.region"] = region
    return conf


def connect(address: str) -> SparkSession:
    """A session on a Spark Connect server.

    Raises:
        SparkUnavailable: if the server does not answer or does not let us in.
    """
    from pyspark.sql.connect.client.retries import DefaultPolicy

    # create(), not getOrCreate(): a session that an earlier run of this process left is stopped on the server. The settings
    # follow once the client has this patience: with its own it would ask a server that is not there for ten minutes.
    session = SparkSession.builder.remote(address).create()
    session.client.set_retry_policies([DefaultPolicy(max_retries=8, max_backoff=5_000)])
    try:
        for name, value in UTC.items():
            session.conf.set(name, value)
    except Exception as error:
        session.client.set_retry_policies([])
        session.stop()  # else it is asked to forget its models when the process ends, for ten minutes if it is not there
        if not isinstance(error, PySparkException) or error.getCondition() is not None:
            raise  # what a server says names what is wrong
        raise SparkUnavailable(
            f"the Spark server can't be reached, or does not let us in (PDM_SPARK_REMOTE says where it is): {error}"
        ) from error
    return session


def local(folder: Path, cores: int, memory_mb: int, store: str) -> SparkSession:
    """A session in this process, with a JVM of its own.

    Raises:
        SparkUnavailable: if there is no Java that Spark runs on.
    """
    from pdm_assets.engine.java import JavaError, java_home

    try:
        os.environ["JAVA_HOME"] = str(java_home())  # pyspark asks the environment
    except JavaError as error:
        raise SparkUnavailable(str(error)) from None
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # its Python workers score: they need NumPy and PyArrow
    builder = SparkSession.builder.master(f"local[{cores}]").config("spark.driver.memory", f"{memory_mb}m")
    for name, value in delta_conf(cores, folder, store).items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


class SparkTables:
    """Delta tables by the SQL of a Spark session, under their quoted names (delta.`path` or catalog.schema.table)."""

    def __init__(self, session: Callable[[], SparkSession]) -> None:
        self._session = session

    def create(
        self,
        name: str,
        schema: T.StructType,
        *,
        partition_by: Sequence[str],
        constraints: Mapping[str, str],
        properties: Mapping[str, str],
    ) -> None:
        """Make a table with its columns, comments, CHECK rules and properties, in one commit; one that is there stays.

        Raises:
            PySparkException: also where another creates it at the same moment.
        """
        columns = ", ".join(
            f"`{f.name}` {f.dataType.simpleString()}{'' if f.nullable else ' NOT NULL'} COMMENT {quoted(f.metadata['comment'])}"
            for f in schema.fields
        )
        by = f" PARTITIONED BY ({', '.join(partition_by)})" if partition_by else ""
        rules = {f"delta.constraints.{rule}": text for rule, text in constraints.items()}
        self._sql(
            f"CREATE TABLE IF NOT EXISTS {name} ({columns}) USING DELTA{by} TBLPROPERTIES ({_listed({**rules, **properties})})"
        )

    def add_column(self, name: str, column: T.StructField) -> None:
        """Add a column that may be null."""
        comment = quoted(column.metadata["comment"])
        self._sql(f"ALTER TABLE {name} ADD COLUMNS (`{column.name}` {column.dataType.simpleString()} COMMENT {comment})")

    def add_constraint(self, name: str, constraint: str, rule: str) -> None:
        """Add a CHECK rule.

        Raises:
            PySparkException: if a row breaks it.
        """
        self._sql(f"ALTER TABLE {name} ADD CONSTRAINT `{constraint}` CHECK ({rule})")

    def set_properties(self, name: str, properties: Mapping[str, str]) -> None:
        """Change properties of the table."""
        self._sql(f"ALTER TABLE {name} SET TBLPROPERTIES ({_listed(properties)})")

    def restore(self, name: str, version: int, note: str) -> None:
        """Make the table what it was at a version, as a new version.

        Raises:
            PySparkException: if that version can't be read.
        """
        session = self._session()
        session.conf.set(USER_METADATA, note)
        try:
            self._sql(f"RESTORE TABLE {name} TO VERSION AS OF {version:d}")
        finally:
            session.conf.unset(USER_METADATA)

    def compact(self, name: str, days: Sequence[dt.date], column: str | None) -> None:
        """Make the files of each of these partitions one, or those of a table without partitions."""
        listed = ", ".join(f"DATE'{day.isoformat()}'" for day in days)
        self._sql(f"OPTIMIZE {name}{f' WHERE {column} IN ({listed})' if column else ''}")

    def vacuum(self, name: str) -> None:
        """Delete the files that no version younger than the table's retention refers to."""
        self._sql(f"VACUUM {name}")

    def history(self, name: str) -> dict[int, dt.datetime]:
        """When each version that the log still has was written, the newest first."""
        from pyspark.sql import functions as F

        rows = self._session().sql(f"DESCRIBE HISTORY {name}").select("version", F.unix_millis("timestamp").alias("at"))
        return {row["version"]: dt.datetime.fromtimestamp(row["at"] / 1000, dt.UTC) for row in rows.collect()}

    def _sql(self, statement: str) -> Any:
        return self._session().sql(statement)


def _listed(properties: Mapping[str, str]) -> str:
    return ", ".join(f"{quoted(name)}={quoted(value)}" for name, value in properties.items())


def quoted(text: str) -> str:
    """A text as a literal of Spark's SQL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
