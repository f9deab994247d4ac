"""The Spark Connect service inside the process: a gRPC channel whose calls are function calls.

The client is PySpark's own, unmodified: it gets this channel from a public `ChannelBuilder` and speaks the public, versioned
protocol (spark/connect/base.proto).
"""

import io
import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pyarrow as pa
import pyspark.sql.connect.proto as pb
from pyspark.sql.connect.client import ChannelBuilder
from pyspark.sql.connect.session import SparkSession
from pyspark.sql.connect.types import pyspark_types_to_proto_types
from pyspark.sql.types import StructType

from pdm_assets.engine.duckdb.errors import ILLEGAL_ARGUMENT, EngineError, RpcError, not_supported, translated
from pdm_assets.engine.duckdb.relations import ddl
from pdm_assets.engine.duckdb.session import DEFAULTS, Limits, Session
from pdm_assets.engine.duckdb.tables import Tables
from pdm_assets.engine.duckdb.types import Field, arrow_schema, struct_of

SERVER_SESSION = str(uuid.uuid4())
VERSION = "4.2.0"  # the protocol's release; docs say that it is not Spark who answers


def connect(limits: Limits, tables: Tables | None = None) -> SparkSession:
    """A Spark session on DuckDB, inside this process.

    Args:
        limits: memory, threads and the folder to spill to.
        tables: who keeps the tables that plans name.
    """
    # Functions of pyspark.sql ask it at each call whether they make columns for a JVM or for a Connect client.
    os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"
    session = SparkSession.builder.channelBuilder(InProcess(Session(limits, tables))).create()  # type: ignore[arg-type]  # it says Default, means any
    session.client.disable_reattachable_execute()  # no network: a stream does not break
    return session


class InProcess(ChannelBuilder):
    """Gives the client its channel."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def toChannel(self) -> grpc.Channel:  # noqa: N802 - PySpark's name
        """The channel."""
        return _Channel(Service(self._session))

    @property
    def host(self) -> str:
        """What PySpark shows of where it is connected to."""
        return "in-process"

    @property
    def endpoint(self) -> str:
        """The same."""
        return "in-process"


class Service:
    """Answers the calls of spark.connect.SparkConnectService; a method has the name of its call."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def close(self) -> None:
        """Let go of the database."""
        self.session.close()

    def Config(self, request: pb.ConfigRequest) -> pb.ConfigResponse:  # noqa: N802
        """Read and set settings of the session; those that would change results may not be other than they are."""
        operation, conf = request.operation, self.session.conf
        kind = operation.WhichOneof("op_type")
        found: dict[str, str | None] = {}
        if kind == "set":
            for pair in operation.set.pairs:
                if pair.value != DEFAULTS.get(pair.key, pair.value):
                    raise not_supported(f"{pair.key}={pair.value}", f"it is {DEFAULTS[pair.key]} here")
            conf.update({pair.key: pair.value for pair in operation.set.pairs})
        elif kind == "unset":
            for key in operation.unset.keys:
                if key not in DEFAULTS:
                    conf.pop(key, None)
        elif kind == "get":
            if unknown := [key for key in operation.get.keys if key not in conf]:
                raise EngineError("SQL_CONF_NOT_FOUND", f"no setting {unknown[0]}", "java.util.NoSuchElementException")
            found = {key: conf[key] for key in operation.get.keys}
        elif kind == "get_with_default":
            pairs = operation.get_with_default.pairs
            found = {pair.key: conf.get(pair.key, pair.value if pair.HasField("value") else None) for pair in pairs}
        elif kind == "get_option":
            found = {key: conf.get(key) for key in operation.get_option.keys}
        elif kind == "is_modifiable":
            found = {key: str(key not in DEFAULTS).lower() for key in operation.is_modifiable.keys}
        else:
            raise not_supported(f"the settings' operation {kind}")
        shown = [pb.KeyValue(key=key, value=value) for key, value in found.items()]
        return pb.ConfigResponse(session_id=request.session_id, server_side_session_id=SERVER_SESSION, pairs=shown)

    def AnalyzePlan(self, request: pb.AnalyzePlanRequest) -> pb.AnalyzePlanResponse:  # noqa: N802
        """The schema of a plan, and the little else that the client asks about."""
        answer = pb.AnalyzePlanResponse(session_id=request.session_id, server_side_session_id=SERVER_SESSION)
        kind = request.WhichOneof("analyze")
        if kind == "schema":
            answer.schema.schema.CopyFrom(_proto(self.session.relation(request.schema.plan.root).fields))
        elif kind == "spark_version":
            answer.spark_version.version = VERSION
        elif kind == "ddl_parse":
            answer.ddl_parse.parsed.CopyFrom(pyspark_types_to_proto_types(ddl(request.ddl_parse.ddl_string)))
        elif kind == "is_local":
            answer.is_local.is_local = True
        elif kind == "is_streaming":
            answer.is_streaming.is_streaming = False
        elif kind == "explain":
            answer.explain.explain_string = self.session.relation(request.explain.plan.root).sql
        else:
            raise not_supported(f"the analysis {kind}")
        return answer

    def ExecutePlan(self, request: pb.ExecutePlanRequest) -> Iterator[pb.ExecutePlanResponse]:  # noqa: N802
        """Rows of a relation as Arrow, or a write."""

        def answer() -> pb.ExecutePlanResponse:
            return pb.ExecutePlanResponse(
                session_id=request.session_id,
                server_side_session_id=SERVER_SESSION,
                operation_id=request.operation_id,
                response_id=str(uuid.uuid4()),
            )

        kind = request.plan.WhichOneof("op_type")
        if kind == "root":
            fields, batches = self.session.batches(request.plan.root)
            head = answer()
            head.schema.CopyFrom(_proto(fields))
            yield head
            is_empty = True
            for batch in batches:
                is_empty = False
                yield _with_rows(answer(), batch)
            if is_empty:  # the client wants a batch to know the columns of
                yield _with_rows(answer(), pa.RecordBatch.from_pylist([], schema=arrow_schema(fields)))
        elif kind == "command" and request.plan.command.HasField("write_operation"):
            self.session.write(request.plan.command.write_operation)
        elif kind == "command" and request.plan.command.HasField("sql_command"):
            raise not_supported("SQL statements", "use the DataFrame API; tables are looked after by pdm_assets.engine.delta")
        else:
            command = request.plan.command.WhichOneof("command_type") if kind == "command" else kind
            raise not_supported(f"the command {command}")
        end = answer()
        end.result_complete.SetInParent()
        yield end

    def ReleaseSession(self, request: pb.ReleaseSessionRequest) -> pb.ReleaseSessionResponse:  # noqa: N802
        """The client stops its session."""
        return pb.ReleaseSessionResponse(session_id=request.session_id, server_side_session_id=SERVER_SESSION)

    def Interrupt(self, request: pb.InterruptRequest) -> pb.InterruptResponse:  # noqa: N802
        """Nothing runs beside the caller: there is nothing to interrupt."""
        return pb.InterruptResponse(session_id=request.session_id, server_side_session_id=SERVER_SESSION)


def _proto(fields: tuple[Field, ...]) -> pb.DataType:
    schema: StructType = struct_of(fields)
    return pyspark_types_to_proto_types(schema)


def _with_rows(answer: pb.ExecutePlanResponse, batch: pa.RecordBatch) -> pb.ExecutePlanResponse:
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, batch.schema) as writer:
        writer.write_batch(batch)
    answer.arrow_batch.row_count = batch.num_rows
    answer.arrow_batch.data = stream.getvalue()
    return answer


class _Channel(grpc.Channel):
    """Calls of one service in the same thread; an error is raised as a gRPC error."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def _method(self, path: str) -> Callable[[Any], Any]:
        name = path.rsplit("/", 1)[1]
        method = getattr(self._service, name, None)

        def missing(_: Any) -> Any:
            raise not_supported(f"the call {name}")

        return method if method is not None else missing

    def unary_unary(self, method: str, *_: Any, **__: Any) -> Any:
        """A call with one answer."""
        answer = self._method(method)

        def call(request: Any, **_: Any) -> Any:
            try:
                return answer(request)
            except Exception as error:
                raise RpcError(translated(error)) from error

        return call

    def unary_stream(self, method: str, *_: Any, **__: Any) -> Any:
        """A call with a stream of answers."""
        answer = self._method(method)

        def call(request: Any, **_: Any) -> Iterator[Any]:
            try:
                yield from answer(request)
            except Exception as error:
                raise RpcError(translated(error)) from error

        return call

    def stream_unary(self, method: str, *_: Any, **__: Any) -> Any:
        """A call with a stream of requests: artifacts, of which there is nothing to keep."""

        def call(*_: Any, **__: Any) -> Any:
            raise RpcError(EngineError("UNSUPPORTED_FEATURE.DUCKDB_ENGINE", f"no {method}", ILLEGAL_ARGUMENT))

        return call

    stream_stream = stream_unary

    def subscribe(self, callback: Any, try_to_connect: bool = False) -> None:
        """Its state never changes."""

    def unsubscribe(self, callback: Any) -> None:
        """Its state never changes."""

    def close(self) -> None:
        """The client is done: so is the database."""
        self._service.close()

    def __enter__(self) -> "_Channel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
