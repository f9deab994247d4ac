"""Window calls: frames, and the functions that exist over windows alone."""

from typing import TYPE_CHECKING

import pyspark.sql.connect.proto as pb
from pyspark.sql import types as T

from pdm_assets.engine.duckdb.errors import not_supported
from pdm_assets.engine.duckdb.functions import AGGREGATES, OVER, together
from pdm_assets.engine.duckdb.types import INTEGRAL, Typed

if TYPE_CHECKING:
    from pdm_assets.engine.duckdb.expressions import Expressions

Frame = pb.Expression.Window.WindowFrame
WITHOUT_FRAME = frozenset({"lag", "lead", "row_number"})


def over_window(expressions: "Expressions", window: pb.Expression.Window) -> Typed:
    """A function over a window.

    Raises:
        EngineError: if this engine does not have the function or the frame.
    """
    function = window.window_function.unresolved_function
    name = function.function_name
    call = _call(expressions, name, function)
    parts = [expressions.typed(part).sql for part in window.partition_spec]
    orders = [expressions.order(order) for order in window.order_spec]
    over = (f"PARTITION BY {', '.join(parts)} " if parts else "") + (f"ORDER BY {', '.join(orders)}" if orders else "")
    if window.HasField("frame_spec") and name not in WITHOUT_FRAME:
        over += _frame(
            window.frame_spec, [expressions.typed(order.child).type for order in window.order_spec], expressions.where
        )
    sql = call.sql.replace(OVER, f" OVER ({over})")
    return Typed(sql, call.type, call.nullable)


def _call(expressions: "Expressions", name: str, function: pb.Expression.UnresolvedFunction) -> Typed:
    if name == "row_number":
        return Typed(f"CAST(row_number(){OVER} AS INTEGER)", T.IntegerType(), False)
    if name in ("lag", "lead"):
        value, *rest = expressions.all_of(function.arguments)
        offset = rest[0].literal if rest else 1
        if not isinstance(offset, int):
            raise not_supported(f"{name} by a column ({expressions.where})")
        if len(rest) > 1 and not isinstance(rest[1].type, T.NullType):
            value, instead = together([value, rest[1]], name)
            return Typed(f"{name}({value.sql}, {offset}, {instead.sql}){OVER}", value.type, True)
        return Typed(f"{name}({value.sql}, {offset}){OVER}", value.type, True)
    if name in ("first", "last"):
        value, *rest = expressions.all_of(function.arguments)
        ignore = " IGNORE NULLS" if rest and rest[0].literal else ""
        return Typed(f"{name}_value({value.sql}{ignore}){OVER}", value.type, True)
    if name in AGGREGATES:
        wrapped = pb.Expression()
        wrapped.unresolved_function.CopyFrom(function)
        return expressions.typed(wrapped)
    raise not_supported(f"{name} over a window ({expressions.where})")


def _frame(frame: pb.Expression.Window.WindowFrame, ordered_by: list[T.DataType], where: str) -> str:
    is_rows = frame.frame_type == Frame.FRAME_TYPE_ROW
    if not is_rows and _has_distance(frame) and not (len(ordered_by) == 1 and isinstance(ordered_by[0], INTEGRAL)):
        raise not_supported(f"a range frame over an order that is not one whole number ({where})")
    kind = "ROWS" if is_rows else "RANGE"
    return f" {kind} BETWEEN {_bound(frame.lower, 'PRECEDING', where)} AND {_bound(frame.upper, 'FOLLOWING', where)}"


def _has_distance(frame: pb.Expression.Window.WindowFrame) -> bool:
    return any(bound.WhichOneof("boundary") == "value" for bound in (frame.lower, frame.upper))


def _bound(bound: Frame.FrameBoundary, side: str, where: str) -> str:
    kind = bound.WhichOneof("boundary")
    if kind == "current_row":
        return "CURRENT ROW"
    if kind == "unbounded":
        return f"UNBOUNDED {side}"
    literal = bound.value.literal
    distance = getattr(literal, str(literal.WhichOneof("literal_type")))
    if not isinstance(distance, int):
        raise not_supported(f"a frame that ends at {distance!r} ({where})")
    return f"{abs(distance)} {'PRECEDING' if distance < 0 else 'FOLLOWING'}"
