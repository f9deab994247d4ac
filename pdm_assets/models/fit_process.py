"""The process that `fitting.FitProcess` starts: a classic Spark session that fits what each line of its input asks for.

`python -m pdm_assets.models.fit_process FOLDER MEMORY_MB FD`; the rows are in FOLDER, answers go to the file descriptor.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark import SparkContext
from pyspark.sql import SparkSession

from pdm_assets.models.fitting import ROWS, FitSpec, fit_in_session

JVM_IS_GONE, NO_JVM = 3, 4


def session(scratch: Path, memory_mb: int) -> SparkSession:
    """A local session with nothing but MLlib: no Delta, no jar to fetch, no page, no port but on 127.0.0.1."""
    conf = {
        "spark.driver.memory": f"{memory_mb}m",
        # without it a JVM that has no heap left goes on with some of its threads dead
        "spark.driver.extraJavaOptions": "-XX:+ExitOnOutOfMemoryError",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "WARN",
    }
    builder = SparkSession.builder.master("local[*]")
    for name, value in conf.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def answer(spark: SparkSession, scratch: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Fit, or say why it can't be."""
    spec: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in asked["spec"].items()}
    with pa.OSFile(str(scratch / ROWS)) as source:
        rows = pa.ipc.open_file(source).read_all()
    try:
        fitted = fit_in_session(spark, rows, FitSpec(**spec), Path(asked["folder"]))
    except Exception as error:
        gateway: Any = SparkContext._gateway
        if gateway is None or gateway.proc.poll() is not None:
            print(error, file=sys.stderr, flush=True)
            os._exit(JVM_IS_GONE)  # nothing to say good-bye to
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    return {"importances": fitted.importances, "seconds": fitted.seconds}


def main() -> None:
    """Fit until the input ends, as it does with the parent."""
    scratch, memory_mb, sending = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    try:
        spark = session(scratch, memory_mb)
    except Exception as error:  # the JVM's own words stand above it in the log
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(NO_JVM)
    with os.fdopen(sending, "wb", buffering=0) as out:
        for line in sys.stdin:
            out.write(json.dumps(answer(spark, scratch, json.loads(line))).encode() + b"\n")
    spark.stop()


if __name__ == "__main__":
    main()
