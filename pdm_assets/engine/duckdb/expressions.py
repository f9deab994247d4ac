"""Expressions of a Connect plan as typed SQL."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import pyspark.sql.connect.proto as pb
from pyspark.sql import types as T
from pyspark.sql.connect.types import parse_attr_name, proto_schema_to_pyspark_data_type

from pdm_assets.engine.duckdb import sqltext
from pdm_assets.engine.duckdb.casts import cast
from pdm_assets.engine.duckdb.errors import EngineError, not_supported
from pdm_assets.engine.duckdb.functions import AGGREGATES, OVER, SCALARS, order_key, unknown
from pdm_assets.engine.duckdb.types import Field, Typed, quoted, text

EPOCH = dt.date(1970, 1, 1)
CAST_NAMES = {
    "string": T.StringType(),
    "boolean": T.BooleanType(),
    "tinyint": T.ByteType(),
    "byte": T.ByteType(),
    "smallint": T.ShortType(),
    "short": T.ShortType(),
    "int": T.IntegerType(),
    "integer": T.IntegerType(),
    "bigint": T.LongType(),
    "long": T.LongType(),
    "double": T.DoubleType(),
    "date": T.DateType(),
    "timestamp": T.TimestampType(),
}
COMPARED = frozenset({"==", "!=", "<", "<=", ">", ">=", "<=>", "in"})
INFIX = frozenset({"+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "and", "or"})


class Expressions:
    """Resolves expressions against the columns of one relation.

    Args:
        fields: the columns.
        where: the relation's place in the plan, for errors.
        variables: lambda variables in scope.
        standing: by the id of a plan, its columns that stand here (`Relation.standing`).
    """

    def __init__(
        self,
        fields: Sequence[Field],
        where: str,
        variables: dict[str, Typed] | None = None,
        standing: Mapping[int, frozenset[str]] | None = None,
    ) -> None:
        self.where = where
        self.standing = standing or {}
        self.fields = {field.name.lower(): field for field in fields}
        self.variables = variables or {}

    def typed(self, expression: pb.Expression) -> Typed:
        """The expression as SQL.

        Raises:
            EngineError: if it can't be resolved or this engine does not support it.
        """
        kind = str(expression.WhichOneof("expr_type"))
        build = getattr(self, f"_{kind}", None)
        if build is None:
            raise not_supported(f"the expression {kind} ({self.where})")
        result: Typed = build(getattr(expression, kind))
        return result

    def all_of(self, expressions: Sequence[pb.Expression]) -> list[Typed]:
        """Each of them."""
        return [self.typed(expression) for expression in expressions]

    def condition(self, expression: pb.Expression) -> Typed:
        """A boolean expression.

        Raises:
            EngineError: if it is of another type.
        """
        found = self.typed(expression)
        if not isinstance(found.type, (T.BooleanType, T.NullType)):
            raise EngineError(
                "DATATYPE_MISMATCH.FILTER_NOT_BOOLEAN", f"a filter of type {found.type.simpleString()} ({self.where})"
            )
        return cast(found, T.BooleanType())

    def column(self, name: str) -> Typed:
        """A column by its name, in whatever case, as Spark resolves it."""
        field = self.fields.get(name.lower())
        if field is None:
            names = ", ".join(quoted(f.name) for f in list(self.fields.values())[:20])
            raise EngineError(
                "UNRESOLVED_COLUMN.WITH_SUGGESTION",
                f"A column with name `{name}` cannot be resolved ({self.where}); there are {names}",
            )
        return Typed(quoted(field.name), field.type, field.nullable, name)

    def order(self, order: pb.Expression.SortOrder) -> str:
        """A sort order, with where nulls go."""
        child = self.typed(order.child)
        key = order_key(child.sql, child.type, child.nullable)
        direction = "DESC" if order.direction == pb.Expression.SortOrder.SORT_DIRECTION_DESCENDING else "ASC"
        nulls = "LAST" if order.null_ordering == pb.Expression.SortOrder.SORT_NULLS_LAST else "FIRST"
        if order.null_ordering == pb.Expression.SortOrder.SORT_NULLS_UNSPECIFIED and direction == "DESC":
            nulls = "LAST"
        return f"{key} {direction} NULLS {nulls}"

    def of_its_frame(self, attribute: pb.Expression.UnresolvedAttribute) -> None:
        """See to it that a column said as `frame["column"]` is here what it was in that frame.

        Raises:
            EngineError: if it is not, or nobody knows.
        """
        name = attribute.unparsed_identifier
        if attribute.HasField("plan_id"):
            first = (parse_attr_name(name) or [""])[0]
            if first.lower() not in self.standing.get(attribute.plan_id, frozenset()):
                raise not_supported(
                    f'frame["{name}"] where the column of that frame does not stand any more ({self.where})',
                    "name the column without its frame, after renaming it if both sides of a join have it",
                )

    # --- one method for each kind of expression, by its name in the protocol

    def _unresolved_attribute(self, attribute: pb.Expression.UnresolvedAttribute) -> Typed:
        parts = parse_attr_name(attribute.unparsed_identifier)
        if not parts:
            raise EngineError(
                "INVALID_ATTRIBUTE_NAME_SYNTAX", f"{attribute.unparsed_identifier!r} is no column name ({self.where})"
            )
        self.of_its_frame(attribute)
        found = self.column(parts[0])
        for part in parts[1:]:
            found = self._field(found, part)
        return found

    def _field(self, struct: Typed, name: str) -> Typed:
        if not isinstance(struct.type, T.StructType):
            raise EngineError("INVALID_EXTRACT_BASE_FIELD_TYPE", f"{struct.name} has no fields: no {name} ({self.where})")
        for field in struct.type.fields:
            if field.name.lower() == name.lower():
                sql = f"struct_extract({struct.sql}, {text(field.name)})"
                return Typed(sql, field.dataType, struct.nullable or field.nullable, field.name)
        raise EngineError("FIELD_NOT_FOUND", f"No such struct field `{name}` in {struct.type.simpleString()} ({self.where})")

    def _unresolved_extract_value(self, extract: pb.Expression.UnresolvedExtractValue) -> Typed:
        child = self.typed(extract.child)
        if isinstance(child.type, T.StructType) and extract.extraction.literal.HasField("string"):
            return self._field(child, extract.extraction.literal.string)
        raise not_supported(f"an item of {child.type.simpleString()} by [] ({self.where})")

    def _literal(self, literal: pb.Expression.Literal) -> Typed:
        kind = str(literal.WhichOneof("literal_type"))
        value = getattr(literal, kind)
        if kind == "null":
            null_type = proto_schema_to_pyspark_data_type(value)
            return cast(Typed("NULL", T.NullType(), True, "NULL"), null_type)
        built = LITERALS.get(kind)
        if built is None:
            raise not_supported(f"a literal of the kind {kind} ({self.where})")
        sql, type_, shown = built(value)
        return Typed(sql, type_, False, shown, literal=value)

    def _alias(self, alias: pb.Expression.Alias) -> Typed:
        if len(alias.name) != 1:
            raise not_supported(f"an alias of several names ({self.where})")
        found = self.typed(alias.expr)
        return Typed(found.sql, found.type, found.nullable, alias.name[0], found.literal)

    def _cast(self, node: pb.Expression.Cast) -> Typed:
        if node.WhichOneof("cast_to_type") == "type_str":
            named = CAST_NAMES.get(node.type_str.strip().lower())
            if named is None:
                raise not_supported(f"a cast to {node.type_str} ({self.where})")
            target: T.DataType = named
        else:
            target = proto_schema_to_pyspark_data_type(node.type)
        if node.eval_mode == pb.Expression.Cast.EVAL_MODE_TRY:
            raise not_supported(f"try_cast ({self.where})")
        return cast(self.typed(node.expr), target)

    def _expression_string(self, node: pb.Expression.ExpressionString) -> Typed:
        return self.typed(sqltext.parse(node.expression))

    def _unresolved_named_lambda_variable(self, variable: pb.Expression.UnresolvedNamedLambdaVariable) -> Typed:
        name = variable.name_parts[0]
        if name not in self.variables:
            raise EngineError("UNRESOLVED_COLUMN.WITHOUT_SUGGESTION", f"no lambda variable {name} ({self.where})")
        return self.variables[name]

    def _unresolved_function(self, function: pb.Expression.UnresolvedFunction) -> Typed:
        name = function.function_name
        if function.is_distinct:
            raise not_supported(f"{name} of distinct values ({self.where})")
        if name in ("exists", "filter"):
            return self._higher_order(name, function)
        if name == "count" and len(function.arguments) == 1 and function.arguments[0].HasField("unresolved_star"):
            return Typed(f"count(*){OVER}", T.LongType(), False, "count(1)")
        arguments = self.all_of(function.arguments)
        if name in COMPARED:
            arguments = _with_times(arguments)
        builder = SCALARS.get(name) or AGGREGATES.get(name)
        if builder is None:
            raise unknown(name)
        try:
            found = builder(arguments)
        except (ValueError, IndexError) as error:
            raise EngineError(
                "WRONG_NUM_ARGS.WITHOUT_SUGGESTION", f"{name} does not take {len(arguments)} arguments ({self.where})"
            ) from error
        except EngineError as error:
            raise EngineError(error.condition, f"{str(error).split('] ', 1)[1]} ({self.where})", error.java_class) from None
        return Typed(found.sql, found.type, found.nullable, _automatic_name(name, arguments))

    def _higher_order(self, name: str, function: pb.Expression.UnresolvedFunction) -> Typed:
        array = self.typed(function.arguments[0])
        if not isinstance(array.type, T.ArrayType):
            raise not_supported(f"{name} of {array.type.simpleString()} ({self.where})")
        node = function.arguments[1].lambda_function
        if len(node.arguments) != 1:
            raise not_supported(f"{name} with the place of the item ({self.where})")
        variable = node.arguments[0].name_parts[0]
        item = Typed(quoted(variable), array.type.elementType, array.type.containsNull)
        inner = Expressions(list(self.fields.values()), self.where, {**self.variables, variable: item}, self.standing)
        body = inner.condition(node.function)
        if name == "filter":
            return Typed(f"list_filter({array.sql}, lambda {quoted(variable)}: {body.sql})", array.type, array.nullable)
        # true if it is of any item; else null if that of some item is not known; else false
        each = f"list_transform({array.sql}, lambda {quoted(variable)}: {body.sql})"
        some_null = f"WHEN len(list_filter({each}, lambda known: known IS NULL)) > 0 THEN NULL " if body.nullable else ""
        sql = f"(CASE WHEN {array.sql} IS NULL THEN NULL WHEN list_contains({each}, TRUE) THEN TRUE {some_null}ELSE FALSE END)"
        return Typed(sql, T.BooleanType(), array.nullable or body.nullable)

    def _window(self, window: pb.Expression.Window) -> Typed:
        from pdm_assets.engine.duckdb.windows import over_window

        return over_window(self, window)


def _with_times(values: list[Typed]) -> list[Typed]:
    """Texts beside a date or a timestamp as what they say: Spark casts them too. Only literals: others are refused later."""
    times = next((v.type for v in values if isinstance(v.type, (T.DateType, T.TimestampType))), None)
    if times is None:
        return values
    return [_time_in(value, times) if isinstance(value.literal, str) else value for value in values]


def _time_in(value: Typed, kind: T.DataType) -> Typed:
    try:
        instant = dt.datetime.fromisoformat(value.literal)
    except ValueError:
        raise EngineError("CAST_INVALID_INPUT", f"{value.literal!r} is no {kind.simpleString()}") from None
    instant = instant if instant.tzinfo else instant.replace(tzinfo=dt.UTC)
    if isinstance(kind, T.DateType):
        return Typed(f"DATE '{instant.date().isoformat()}'", kind, False)
    micros = (instant - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
    return Typed(f"make_timestamptz({micros}::BIGINT)", kind, False)


def _automatic_name(name: str, arguments: Sequence[Typed]) -> str | None:
    """The column name that Spark gives a call without an alias, where it is a plain one."""
    names = [argument.name for argument in arguments]
    if any(part is None for part in names):
        return None
    if name in INFIX and len(names) == 2:
        return f"({names[0]} {'=' if name == '==' else name.upper() if name.isalpha() else name} {names[1]})"
    return f"{name}({', '.join(map(str, names))})" if name.isidentifier() else None


def _double(value: float) -> tuple[str, T.DataType, str]:
    return f"'{value!r}'::DOUBLE", T.DoubleType(), repr(value)


def _date(days: int) -> tuple[str, T.DataType, str]:
    day = EPOCH + dt.timedelta(days=days)
    return f"DATE '{day.isoformat()}'", T.DateType(), f"DATE '{day.isoformat()}'"


def _decimal(value: Any) -> tuple[str, T.DataType, str]:
    return f"'{float(value.value)!r}'::DOUBLE", T.DecimalType(value.precision or 10, value.scale or 0), value.value


LITERALS: dict[str, Any] = {
    "boolean": lambda v: ("TRUE" if v else "FALSE", T.BooleanType(), str(v).lower()),
    "byte": lambda v: (f"({v}::TINYINT)", T.ByteType(), str(v)),
    "short": lambda v: (f"({v}::SMALLINT)", T.ShortType(), str(v)),
    "integer": lambda v: (f"({v}::INTEGER)", T.IntegerType(), str(v)),
    "long": lambda v: (f"({v}::BIGINT)", T.LongType(), str(v)),
    "double": _double,
    "string": lambda v: (text(v), T.StringType(), v),
    "date": _date,
    "timestamp": lambda v: (f"make_timestamptz({v}::BIGINT)", T.TimestampType(), None),
    "day_time_interval": lambda v: (f"({v}::BIGINT)", T.DayTimeIntervalType(), None),
    "decimal": _decimal,
}
