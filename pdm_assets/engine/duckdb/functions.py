"""The functions that the engine knows, each by one line of a table: to add one, add a line (and its test on both engines).

A builder gets the typed arguments and gives the typed SQL of Spark's result in ANSI mode. What DuckDB's function of the same
name does otherwise than Spark's is said where it is mended.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from pyspark.sql import types as T

from pdm_assets.engine.duckdb.casts import cast
from pdm_assets.engine.duckdb.errors import EngineError, not_supported
from pdm_assets.engine.duckdb.types import FRACTIONAL, INTEGRAL, NUMERIC, Typed, common_type, is_null, quoted, sql_type

Builder = Callable[[Sequence[Typed]], Typed]

BOOLEAN, INTEGER, LONG, DOUBLE, STRING = T.BooleanType(), T.IntegerType(), T.LongType(), T.DoubleType(), T.StringType()
DATE, TIMESTAMP, INTERVAL = T.DateType(), T.TimestampType(), T.DayTimeIntervalType()
HASH = "spark_xxhash64"  # a function of the connection: session.py makes it
OVER = f"/*over {uuid.uuid4()}*/"  # where an aggregate's call takes its window; nothing stands there in a grouping


def together(values: Sequence[Typed], where: str) -> list[Typed]:
    """The values cast to the type that they have in common."""
    kind = common_type([value.type for value in values], where)
    return [cast(value, kind) for value in values]


def expect(value: Typed, kinds: type[T.DataType] | tuple[type[T.DataType], ...], where: str) -> Typed:
    """The value, if it is of one of these types or a bare null.

    Raises:
        EngineError: if it is of another one.
    """
    if not isinstance(value.type, kinds) and not is_null(value.type):
        raise not_supported(f"{where} of {value.type.simpleString()}")
    return value


def any_null(values: Sequence[Typed]) -> bool:
    """Whether the result may be null because an argument may."""
    return any(value.nullable for value in values)


def _arithmetic(operator: str, values: Sequence[Typed]) -> Typed:
    left, right = values
    kinds = {type(left.type), type(right.type)}
    if operator in "+-" and T.DayTimeIntervalType in kinds:
        return _with_interval(operator, left, right)
    for value in values:
        expect(value, NUMERIC, f"`{operator}`")
    left, right = together(values, f"`{operator}`")
    return Typed(f"({left.sql} {operator} {right.sql})", left.type, any_null(values))


def _with_interval(operator: str, left: Typed, right: Typed) -> Typed:
    if operator == "+" and isinstance(left.type, T.DayTimeIntervalType):
        left, right = right, left
    if isinstance(left.type, T.DateType):
        left = cast(left, TIMESTAMP)
    nullable = any_null([left, right])
    if isinstance(left.type, T.TimestampType) and isinstance(right.type, T.DayTimeIntervalType):
        return Typed(f"make_timestamptz(epoch_us({left.sql}) {operator} {right.sql})", TIMESTAMP, nullable)
    if isinstance(left.type, T.DayTimeIntervalType) and isinstance(right.type, T.DayTimeIntervalType):
        return Typed(f"({left.sql} {operator} {right.sql})", INTERVAL, nullable)
    raise not_supported(f"`{operator}` of {left.type.simpleString()} and {right.type.simpleString()}")


def _guarded(condition: str, left: Typed, right: Typed, result: str) -> str:
    """The result, or Spark's error where the divisor is 0 and the dividend is known."""
    if right.literal is not None and right.literal != 0:
        return result
    raised = f"error('[{condition}] Division by zero. Use `try_divide` to tolerate a divisor of 0 and return NULL instead.')"
    return f"(CASE WHEN {right.sql} = 0 AND {left.sql} IS NOT NULL THEN {raised} ELSE {result} END)"


def _divide(values: Sequence[Typed]) -> Typed:
    for value in values:
        expect(value, NUMERIC, "`/`")
    left, right = (cast(value, DOUBLE) for value in values)
    right = Typed(right.sql, right.type, right.nullable, literal=values[1].literal)
    return Typed(_guarded("DIVIDE_BY_ZERO", left, right, f"({left.sql} / {right.sql})"), DOUBLE, True)


def _try_divide(values: Sequence[Typed]) -> Typed:
    for value in values:
        expect(value, NUMERIC, "try_divide")
    left, right = (cast(value, DOUBLE) for value in values)
    return Typed(f"(CASE WHEN {right.sql} <> 0 THEN {left.sql} / {right.sql} END)", DOUBLE, True)


def _remainder(name: str, values: Sequence[Typed]) -> Typed:
    for value in values:
        expect(value, INTEGRAL, f"`{name}`")
    literal = values[1].literal
    left, right = together(values, f"`{name}`")
    right = Typed(right.sql, right.type, right.nullable, literal=literal)
    result = f"({left.sql} % {right.sql})"
    if name == "pmod":  # never below 0 for a positive divisor; the first remainder is smaller than the divisor: no overflow
        result = f"(CASE WHEN {result} < 0 THEN ({result} + {right.sql}) % {right.sql} ELSE {result} END)"
    return Typed(_guarded("REMAINDER_BY_ZERO", left, right, result), left.type, True)


def _comparison(operator: str, values: Sequence[Typed]) -> Typed:
    left, right = together(values, f"`{operator}`")
    _comparable(left.type, f"`{operator}`")
    if operator in "<>=" and not isinstance(left.type, T.AtomicType) and operator not in ("=", "<>"):
        raise not_supported(f"`{operator}` of {left.type.simpleString()}")
    return Typed(f"({left.sql} {operator} {right.sql})", BOOLEAN, any_null(values))


def _comparable(kind: T.DataType, where: str) -> None:
    if isinstance(kind, T.MapType):
        raise not_supported(f"{where} of {kind.simpleString()}")


def _null_safe_equal(values: Sequence[Typed]) -> Typed:
    left, right = together(values, "`<=>`")
    _comparable(left.type, "`<=>`")
    return Typed(f"({left.sql} IS NOT DISTINCT FROM {right.sql})", BOOLEAN, False)


def _logical(operator: str, values: Sequence[Typed]) -> Typed:
    left, right = (cast(expect(value, T.BooleanType, f"`{operator}`"), BOOLEAN) for value in values)
    return Typed(f"({left.sql} {operator} {right.sql})", BOOLEAN, any_null(values))


def _in(values: Sequence[Typed]) -> Typed:
    if len(values) == 1:
        return Typed(f"(CASE WHEN {values[0].sql} IS NOT NULL THEN FALSE END)", BOOLEAN, values[0].nullable)
    value, *rest = together(values, "isin")
    _comparable(value.type, "isin")
    return Typed(f"({value.sql} IN ({', '.join(v.sql for v in rest)}))", BOOLEAN, any_null(values))


def _when(values: Sequence[Typed]) -> Typed:
    pairs, last = (values, None) if len(values) % 2 == 0 else (values[:-1], values[-1])
    conditions = [cast(expect(value, T.BooleanType, "a condition of `when`"), BOOLEAN) for value in pairs[::2]]
    results = together([*pairs[1::2], *([last] if last else [])], "the branches of `when`")
    branches = " ".join(f"WHEN {c.sql} THEN {r.sql}" for c, r in zip(conditions, results, strict=False))
    otherwise = f" ELSE {results[-1].sql}" if last else ""
    return Typed(f"(CASE {branches}{otherwise} END)", results[0].type, last is None or any_null(results))


def _coalesce(values: Sequence[Typed]) -> Typed:
    results = together(values, "coalesce")
    nullable = all(value.nullable for value in values)
    return Typed(f"coalesce({', '.join(r.sql for r in results)})", results[0].type, nullable)


def _extreme(name: str, values: Sequence[Typed]) -> Typed:
    """Greatest or least: nulls are passed over, NaN is greater than any number, in both engines."""
    results = together(values, name)
    expect(results[0], (*NUMERIC, T.DateType, T.TimestampType, T.StringType), name)
    return Typed(f"{name}({', '.join(r.sql for r in results)})", results[0].type, all(v.nullable for v in values))


def _same_number(name: str, values: Sequence[Typed]) -> Typed:
    """A function that keeps the number's type and raises what the type can't hold, in both engines."""
    (value,) = values
    expect(value, NUMERIC, name)
    sql = f"(-{value.sql})" if name == "-" else f"{name}({value.sql})"
    return Typed(sql, value.type, value.nullable)


def _double(name: str, values: Sequence[Typed]) -> Typed:
    (value,) = (cast(expect(value, NUMERIC, name), DOUBLE) for value in values)
    return Typed(f"{name}({value.sql})", DOUBLE, value.nullable)


def _logarithm(values: Sequence[Typed]) -> Typed:
    """Null for what is not above 0, where DuckDB says NaN or -Infinity."""
    (value,) = (cast(expect(value, NUMERIC, "ln"), DOUBLE) for value in values)
    return Typed(f"(CASE WHEN {value.sql} > 0 THEN ln({value.sql}) END)", DOUBLE, True)


def _nanvl(values: Sequence[Typed]) -> Typed:
    value, other = together([expect(v, (*FRACTIONAL, *INTEGRAL), "nanvl") for v in values], "nanvl")
    value, other = cast(value, DOUBLE), cast(other, DOUBLE)
    return Typed(f"(CASE WHEN isnan({value.sql}) THEN {other.sql} ELSE {value.sql} END)", DOUBLE, any_null(values))


def _isnan(values: Sequence[Typed]) -> Typed:
    value = expect(values[0], FRACTIONAL, "isnan")
    return Typed(f"coalesce(isnan({value.sql}), FALSE)", BOOLEAN, False)


def _struct(values: Sequence[Typed]) -> Typed:
    names = [value.name or f"col{place}" for place, value in enumerate(values, start=1)]
    if len({name.lower() for name in names}) < len(names):
        raise not_supported("a struct with two fields of one name")
    fields = [T.StructField(name, value.type, value.nullable) for name, value in zip(names, values, strict=True)]
    packed = ", ".join(f"{quoted(name)} := {value.sql}" for name, value in zip(names, values, strict=True))
    return Typed(f"struct_pack({packed})", T.StructType(fields), False)


def _array(values: Sequence[Typed]) -> Typed:
    items = together(values, "array") if values else []
    kind = items[0].type if items else T.NullType()
    sql = f"[{', '.join(item.sql for item in items)}]" if items else "[]::INTEGER[]"
    return Typed(sql, T.ArrayType(kind, any_null(values)), False)


def _element(kind: T.DataType, where: str) -> T.DataType:
    if not isinstance(kind, T.ArrayType):
        raise not_supported(f"{where} of {kind.simpleString()}")
    return kind.elementType


def _element_at(values: Sequence[Typed]) -> Typed:
    array, place = values
    kind = _element(array.type, "element_at")
    expect(place, (T.ByteType, T.ShortType, T.IntegerType), "the place of element_at")
    outside = "error('[INVALID_ARRAY_INDEX_IN_ELEMENT_AT] The index is out of bounds: the array has fewer items.')"
    zero = "error('[INVALID_INDEX_OF_ZERO] The index 0 is invalid: the first item has index 1, the last one -1.')"
    sql = f"WHEN {place.sql} = 0 THEN {zero} WHEN abs({place.sql}) > len({array.sql}) THEN {outside}"
    return Typed(f"(CASE {sql} ELSE list_extract({array.sql}, {place.sql}) END)", kind, True)


def _size(values: Sequence[Typed]) -> Typed:
    (array,) = values
    _element(array.type, "size")
    return Typed(f"CAST(len({array.sql}) AS INTEGER)", INTEGER, array.nullable)  # null for null, as in ANSI mode


def _array_join(values: Sequence[Typed]) -> Typed:
    array, separator, *instead = values
    if not isinstance(_element(array.type, "array_join"), T.StringType):
        raise not_supported(f"array_join of {array.type.simpleString()}")
    item = f"coalesce(item, {instead[0].sql})" if instead else "item"
    kept = array.sql if instead else f"list_filter({array.sql}, lambda item: item IS NOT NULL)"
    listed = f"list_transform({kept}, lambda item: {item})" if instead else kept
    # DuckDB joins no items to null, Spark to an empty text
    joined = f"(CASE WHEN len({listed}) = 0 THEN '' ELSE array_to_string({listed}, {separator.sql}) END)"
    return Typed(f"(CASE WHEN {array.sql} IS NOT NULL THEN {joined} END)", STRING, any_null(values))


def _concat(values: Sequence[Typed]) -> Typed:
    parts = [cast(expect(value, T.StringType, "concat"), STRING) for value in values]
    return Typed(f"({' || '.join(part.sql for part in parts)})", STRING, any_null(values))


def order_key(sql: str, kind: T.DataType, nullable: bool = True) -> str:
    """An expression in whose order DuckDB has values as Spark does: nulls first, also inside of a struct.

    DuckDB takes a null inside of a struct for the greatest value, Spark for the least.
    """
    if not isinstance(kind, T.StructType):
        if isinstance(kind, (T.ArrayType, T.MapType)):
            raise not_supported(f"an order of {kind.simpleString()}")
        return sql
    parts = []
    for n, field in enumerate(kind.fields):
        part = f"struct_extract({sql}, {_name(field.name)})"
        if field.nullable:
            parts.append(f"k{n}_known := {part} IS NOT NULL")
        parts.append(f"k{n} := {order_key(part, field.dataType, field.nullable)}")
    return f"struct_pack({', '.join(parts)})"


def _name(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"


def _array_min(values: Sequence[Typed]) -> Typed:
    (array,) = values
    kind = _element(array.type, "array_min")
    if isinstance(kind, T.StructType):
        keyed = f"list_transform({array.sql}, lambda item: struct_pack(k := {order_key('item', kind)}, v := item))"
        known = f"list_filter({keyed}, lambda item: item.v IS NOT NULL)"
        return Typed(f"struct_extract(list_min({known}), 'v')", kind, True)
    return Typed(f"list_min({array.sql})", kind, True)


def _unix_micros(values: Sequence[Typed]) -> Typed:
    value = expect(values[0], T.TimestampType, "unix_micros")
    return Typed(f"epoch_us({value.sql})", LONG, value.nullable)


def _unix_millis(values: Sequence[Typed]) -> Typed:
    value = expect(values[0], T.TimestampType, "unix_millis")
    return Typed(f"CAST(floor(epoch_us({value.sql}) / 1000.0::DOUBLE) AS BIGINT)", LONG, value.nullable)


def _timestamp_micros(values: Sequence[Typed]) -> Typed:
    value = cast(expect(values[0], INTEGRAL, "timestamp_micros"), LONG)
    return Typed(f"make_timestamptz({value.sql})", TIMESTAMP, value.nullable)


def _to_date(values: Sequence[Typed]) -> Typed:
    if len(values) > 1:
        raise not_supported("to_date with a format")
    return cast(expect(values[0], (T.TimestampType, T.DateType), "to_date"), DATE)


def _date_add(values: Sequence[Typed]) -> Typed:
    day = cast(expect(values[0], (T.DateType, T.TimestampType), "date_add"), DATE)
    days = expect(values[1], (T.ByteType, T.ShortType, T.IntegerType), "the days of date_add")
    return Typed(f"({day.sql} + {days.sql})", DATE, any_null(values))


def _make_interval(values: Sequence[Typed]) -> Typed:
    units = (86_400_000_000, 3_600_000_000, 60_000_000)
    parts = [f"{cast(v, LONG).sql} * {unit}" for v, unit in zip(values[:3], units, strict=False)]
    if len(values) > 3:
        parts.append(f"CAST(round(CAST({values[3].sql} AS DOUBLE) * 1000000) AS BIGINT)")
    return Typed(f"({' + '.join(parts) or '0::BIGINT'})", INTERVAL, any_null(values))


def _hash(values: Sequence[Typed]) -> Typed:
    """Spark's xxhash64 of numbers, dates and timestamps: each column's hash is the seed of the next one's."""
    seed = "42::BIGINT"
    for value in values:
        if isinstance(value.type, (T.LongType, T.TimestampType)):
            width, bits = 8, f"epoch_us({value.sql})" if isinstance(value.type, T.TimestampType) else value.sql
        elif isinstance(value.type, (T.BooleanType, T.ByteType, T.ShortType, T.IntegerType)):
            width, bits = 4, f"CAST({value.sql} AS BIGINT)"
        elif isinstance(value.type, T.DateType):
            width, bits = 4, f"CAST(date_diff('day', DATE '1970-01-01', {value.sql}) AS BIGINT)"
        else:
            raise not_supported(f"xxhash64 of {value.type.simpleString()}")
        hashed = f"{HASH}({bits}, {seed}, {width})"
        seed = f"(CASE WHEN {value.sql} IS NULL THEN {seed} ELSE {hashed} END)" if value.nullable else hashed
    return Typed(seed, LONG, False)


def _is_null(values: Sequence[Typed]) -> Typed:
    return Typed(f"({values[0].sql} IS NULL)", BOOLEAN, False)


def _is_not_null(values: Sequence[Typed]) -> Typed:
    return Typed(f"({values[0].sql} IS NOT NULL)", BOOLEAN, False)


def _not(values: Sequence[Typed]) -> Typed:
    value = cast(expect(values[0], T.BooleanType, "`not`"), BOOLEAN)
    return Typed(f"(NOT {value.sql})", BOOLEAN, value.nullable)


def _minus(values: Sequence[Typed]) -> Typed:
    return _same_number("-", values) if len(values) == 1 else _arithmetic("-", values)


SCALARS: Mapping[str, Builder] = {
    "+": partial(_arithmetic, "+"),
    "-": _minus,
    "*": partial(_arithmetic, "*"),
    "/": _divide,
    "%": partial(_remainder, "%"),
    "negative": partial(_same_number, "-"),
    "==": partial(_comparison, "="),
    "!=": partial(_comparison, "<>"),
    "<": partial(_comparison, "<"),
    "<=": partial(_comparison, "<="),
    ">": partial(_comparison, ">"),
    ">=": partial(_comparison, ">="),
    "<=>": _null_safe_equal,
    "and": partial(_logical, "AND"),
    "or": partial(_logical, "OR"),
    "not": _not,
    "in": _in,
    "isNull": _is_null,
    "isNotNull": _is_not_null,
    "isnan": _isnan,
    "when": _when,
    "coalesce": _coalesce,
    "greatest": partial(_extreme, "greatest"),
    "least": partial(_extreme, "least"),
    "abs": partial(_same_number, "abs"),
    "sqrt": partial(_double, "sqrt"),
    "exp": partial(_double, "exp"),
    "ln": _logarithm,
    "nanvl": _nanvl,
    "pmod": partial(_remainder, "pmod"),
    "try_divide": _try_divide,
    "xxhash64": _hash,
    "concat": _concat,
    "struct": _struct,
    "array": _array,
    "array_join": _array_join,
    "array_min": _array_min,
    "element_at": _element_at,
    "size": _size,
    "unix_micros": _unix_micros,
    "unix_millis": _unix_millis,
    "timestamp_micros": _timestamp_micros,
    "to_date": _to_date,
    "date_add": _date_add,
    "make_dt_interval": _make_interval,
}


def _sum(values: Sequence[Typed]) -> Typed:
    """Of whole numbers in 128 bits, which is then cast: what a BIGINT can't hold raises, as Spark's sum does."""
    value = expect(values[0], NUMERIC, "sum")
    if isinstance(value.type, INTEGRAL):
        return Typed(f"CAST(sum({value.sql}){OVER} AS BIGINT)", LONG, True)
    return Typed(f"sum({cast(value, DOUBLE).sql}){OVER}", DOUBLE, True)


def _count(values: Sequence[Typed]) -> Typed:
    sure = all(not value.nullable for value in values)
    counted = "*" if sure else "CASE WHEN " + " AND ".join(f"{v.sql} IS NOT NULL" for v in values) + " THEN 1 END"
    return Typed(f"count({counted}){OVER}", LONG, False)


def _count_if(values: Sequence[Typed]) -> Typed:
    value = expect(values[0], T.BooleanType, "count_if")
    return Typed(f"count(CASE WHEN {value.sql} THEN 1 END){OVER}", LONG, False)


def _min_or_max(name: str, values: Sequence[Typed]) -> Typed:
    (value,) = values
    if isinstance(value.type, T.StructType):
        # A null struct is passed over, as its key is null then. (DuckDB keeps structs here as sort keys: -0.0 becomes 0.0.)
        key = f"CASE WHEN {value.sql} IS NOT NULL THEN {order_key(value.sql, value.type)} END"
        return Typed(f"arg_{name}({value.sql}, {key}){OVER}", value.type, True)
    expect(value, (*NUMERIC, T.BooleanType, T.DateType, T.TimestampType, T.StringType), name)
    return Typed(f"{name}({value.sql}){OVER}", value.type, True)


def _collect_list(values: Sequence[Typed]) -> Typed:
    """Of no values an empty list, where DuckDB has null; in the order in which rows come, which is not promised."""
    (value,) = values
    listed = f"list({value.sql}) FILTER (WHERE {value.sql} IS NOT NULL){OVER}"
    return Typed(f"coalesce({listed}, []::{sql_type(value.type)}[])", T.ArrayType(value.type, False), False)


AGGREGATES: Mapping[str, Builder] = {
    "sum": _sum,
    "count": _count,
    "count_if": _count_if,
    "min": partial(_min_or_max, "min"),
    "max": partial(_min_or_max, "max"),
    "collect_list": _collect_list,
}


def known() -> list[str]:
    """The names of all functions, for the error that names one that is not known."""
    return sorted({*SCALARS, *AGGREGATES, "explode", "inline", "exists", "filter", "lag", "last", "first", "row_number"})


def unknown(name: str) -> EngineError:
    """The error for a function that is in no table."""
    return not_supported(f"the function {name}", f"known are {', '.join(known())}; or use the engine `spark`")
