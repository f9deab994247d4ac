"""Errors of the endpoint as the Spark Connect client expects them: a gRPC status that names Spark's own error class.

The client turns these into PySpark's exception classes, so `except AnalysisException` works on both engines.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

DETAILS_KEY = "grpc-status-details-bin"
MARKED = re.compile(r"\[([A-Z][A-Z_.]+)\] (.*)", re.DOTALL)  # how the generated SQL raises one of Spark's error classes

ANALYSIS = "org.apache.spark.sql.AnalysisException"
ARITHMETIC = "java.lang.ArithmeticException"
NUMBER_FORMAT = "java.lang.NumberFormatException"
ILLEGAL_ARGUMENT = "java.lang.IllegalArgumentException"
UNSUPPORTED = "java.lang.UnsupportedOperationException"
RUNTIME = "org.apache.spark.SparkRuntimeException"
SPARK = "org.apache.spark.SparkException"
PYTHON = "org.apache.spark.api.python.PythonException"

CLASS_OF = {
    "DIVIDE_BY_ZERO": ARITHMETIC,
    "REMAINDER_BY_ZERO": ARITHMETIC,
    "ARITHMETIC_OVERFLOW": ARITHMETIC,
    "CAST_OVERFLOW": ARITHMETIC,
    "CAST_INVALID_INPUT": NUMBER_FORMAT,
    "INVALID_ARRAY_INDEX_IN_ELEMENT_AT": "java.lang.ArrayIndexOutOfBoundsException",
}


class EngineError(Exception):
    """An error with one of Spark's error conditions, such as UNRESOLVED_COLUMN, and the JVM class that PySpark maps."""

    def __init__(self, condition: str, message: str, java_class: str = ANALYSIS) -> None:
        super().__init__(f"[{condition}] {message}")
        self.condition, self.java_class = condition, java_class


def not_supported(what: str, advice: str = "") -> EngineError:
    """A plan, expression or call that this engine does not answer. It never guesses."""
    hint = advice or "write it with what is supported (pdm_assets/engine/duckdb/functions.py) or use the engine `spark`"
    return EngineError("UNSUPPORTED_FEATURE.DUCKDB_ENGINE", f"the DuckDB engine does not support {what}: {hint}", UNSUPPORTED)


def translated(error: Exception) -> EngineError:
    """DuckDB's error under Spark's name."""
    import duckdb

    if isinstance(error, EngineError):
        return error
    text = str(error)
    if marked := MARKED.search(text):
        condition = marked[1]
        return EngineError(condition, marked[2].splitlines()[0], CLASS_OF.get(condition, RUNTIME))
    first = text.splitlines()[0] if text else type(error).__name__
    if isinstance(error, duckdb.ConversionException) and "out of range" in text:
        # a sum is kept in 128 bits and cast at the end: that is an overflow of the sum
        return EngineError("ARITHMETIC_OVERFLOW" if "INT128" in text else "CAST_OVERFLOW", first, ARITHMETIC)
    named: list[tuple[type[Exception], str, str, str]] = [
        (duckdb.ConversionException, "CAST_INVALID_INPUT", first, NUMBER_FORMAT),
        (duckdb.OutOfRangeException, "ARITHMETIC_OVERFLOW", first, ARITHMETIC),
        (duckdb.OutOfMemoryException, "OUT_OF_MEMORY", f"DuckDB may not take more memory, or the disk is full: {first}", SPARK),
        (duckdb.InterruptException, "OPERATION_CANCELED", "the query was interrupted", SPARK),
        (Exception, "INTERNAL_ERROR", f"{type(error).__name__}: {text}", SPARK),
    ]
    return next(EngineError(name, says, java) for kind, name, says, java in named if isinstance(error, kind))


class RpcError(grpc.RpcError, grpc.Call):
    """What a gRPC call raises: the client reads code, message and details off it."""

    def __init__(self, error: EngineError) -> None:
        super().__init__(str(error))
        self.error = error
        java_classes = [error.java_class, "java.lang.RuntimeException", "java.lang.Exception"]
        info = error_details_pb2.ErrorInfo(
            reason=error.java_class,
            domain="duckdb",
            metadata={"classes": json.dumps(java_classes), "errorClass": error.condition, "messageParameters": "{}"},
        )
        detail = any_pb2.Any()
        detail.Pack(info)
        status = status_pb2.Status(code=grpc.StatusCode.INTERNAL.value[0], message=str(error), details=[detail])
        self._trailing: Sequence[tuple[str, bytes]] = ((DETAILS_KEY, status.SerializeToString()),)

    def code(self) -> grpc.StatusCode:
        """Always INTERNAL: no code that the client would try again after."""
        return grpc.StatusCode.INTERNAL

    def details(self) -> str:
        """The text of the error."""
        return str(self.error)

    def trailing_metadata(self) -> Any:
        """The packed status."""
        return self._trailing

    def initial_metadata(self) -> Any:
        """None."""
        return ()

    def is_active(self) -> bool:
        """It has ended."""
        return False

    def time_remaining(self) -> float | None:
        """No deadline."""
        return None

    def cancel(self) -> bool:
        """Nothing is left to cancel."""
        return False

    def add_callback(self, callback: Any) -> bool:
        """It has ended: the callback would never be called."""
        return False
