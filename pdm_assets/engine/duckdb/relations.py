"""Relations of a Connect plan as SQL: one SELECT, with the schema that Spark would give it."""

import datetime as dt
import itertools
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyspark.sql.connect.proto as pb
from pyspark.sql import types as T
from pyspark.sql.connect.types import proto_schema_to_pyspark_data_type

from pdm_assets.engine.duckdb.casts import cast
from pdm_assets.engine.duckdb.errors import EngineError, not_supported
from pdm_assets.engine.duckdb.expressions import EPOCH, Expressions
from pdm_assets.engine.duckdb.functions import OVER
from pdm_assets.engine.duckdb.tables import Bound, Tables
from pdm_assets.engine.duckdb.types import (
    FRACTIONAL,
    Field,
    Typed,
    arrow_schema,
    common_type,
    fields_of,
    quoted,
    sql_type,
    text,
)

GENERATORS = ("explode", "inline")
Generator = tuple[pb.Expression.UnresolvedFunction, str | None]  # its call, and the alias of what it makes
JOINS = {
    pb.Join.JOIN_TYPE_INNER: "INNER",
    pb.Join.JOIN_TYPE_LEFT_OUTER: "LEFT",
    pb.Join.JOIN_TYPE_RIGHT_OUTER: "RIGHT",
    pb.Join.JOIN_TYPE_FULL_OUTER: "FULL",
    pb.Join.JOIN_TYPE_LEFT_SEMI: "SEMI",
    pb.Join.JOIN_TYPE_LEFT_ANTI: "ANTI",
}
DELTA_NAME = re.compile(r"`?delta`?\.`((?:[^`]|``)+)`")
MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "=="}


@dataclass(frozen=True)
class Mapped:
    """Rows that a Python function makes of those of a SELECT, batch by batch (`mapInArrow`)."""

    relation: "Relation"
    command: bytes
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Relation:
    """A SELECT and its columns.

    `registered` are the Arrow objects that it reads, by name; `standing`, by the id of a plan that it is made from, which
    columns of that plan it has unchanged under their names: of these alone `frame["column"]` may be said.
    """

    sql: str
    fields: tuple[Field, ...]
    registered: dict[str, Any] = field(default_factory=dict)
    standing: dict[int, frozenset[str]] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """The statement as something to select from."""
        return f"({self.sql})"


class Relations:
    """Translates the relations of one plan."""

    def __init__(self, tables: Tables | None) -> None:
        self.tables = tables
        self._names = itertools.count()
        self._depth = 0

    def relation(self, node: pb.Relation, bounds: Sequence[Bound] = ()) -> Relation:
        """The relation as SQL.

        Args:
            node: the relation.
            bounds: what every row that is wanted of it meets: a table leaves out the files of others.

        Raises:
            EngineError: if it can't be resolved or this engine does not support it.
        """
        kind = str(node.WhichOneof("rel_type"))
        build = getattr(self, f"_{kind}", None)
        if build is None:
            raise not_supported(f"the relation {kind}")
        if kind in ("read", "filter", "subquery_alias", "hint", "repartition", "repartition_by_expression"):
            found: Relation = build(getattr(node, kind), bounds)
        else:
            found = build(getattr(node, kind))
        names = [f.name.lower() for f in found.fields]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise not_supported(f"two columns of one name ({', '.join(repeated)}) after {kind}", "rename one of them first")
        if decimals := [f.name for f in found.fields if isinstance(f.type, T.DecimalType)]:
            raise not_supported(f"columns of decimals ({', '.join(decimals)}) after {kind}", "cast to double")
        return replace(found, standing={**found.standing, node.common.plan_id: frozenset(names)})

    # --- one method for each kind of relation, by its name in the protocol

    def _read(self, node: pb.Read, bounds: Sequence[Bound]) -> Relation:
        if node.WhichOneof("read_type") == "named_table":
            match = DELTA_NAME.fullmatch(node.named_table.unparsed_identifier)
            if match is None or self.tables is None:
                raise not_supported(f"the table {node.named_table.unparsed_identifier}", "name it delta.`path`")
            options = {name.lower(): value for name, value in node.named_table.options.items()}
            version = options.pop("versionasof", None)
            if options:
                raise not_supported(f"the options {', '.join(sorted(options))} of a table")
            scan = self.tables.scan(match[1].replace("``", "`"), bounds, None if version is None else int(version))
            return Relation(scan.sql, scan.fields, dict(scan.registered))
        source = node.data_source
        if source.format != "parquet" or not source.schema:
            raise not_supported(f"reading {source.format or 'files'} without a schema", "read Parquet with a schema")
        fields = fields_of(_schema(source.schema))
        paths = ", ".join(text(_unescaped(path)) for path in source.paths)
        return Relation(parquet(f"[{paths}]", fields), tuple(Field(f.name, f.type, True) for f in fields))

    def _local_relation(self, node: pb.LocalRelation) -> Relation:
        name = f"local_{next(self._names)}"
        schema = _schema(node.schema) if node.HasField("schema") else None
        if node.HasField("data"):
            with pa.ipc.open_stream(node.data) as reader:
                rows = reader.read_all()
            if schema is None:
                schema = _spark_schema(rows.schema)
        else:
            assert schema is not None
            rows = arrow_schema(fields_of(schema)).empty_table()
        fields = fields_of(schema)
        rows = rows.rename_columns([f.name for f in fields])
        rows = pa.table([_stored(rows.column(n), f.type) for n, f in enumerate(fields)], names=[f.name for f in fields])
        columns = ", ".join(f"CAST({quoted(f.name)} AS {sql_type(f.type)}) AS {quoted(f.name)}" for f in fields)
        return Relation(f"SELECT {columns} FROM {name}", fields, {name: rows})

    def _range(self, node: pb.Range) -> Relation:
        return Relation(
            f"SELECT range AS id FROM range({node.start}, {node.end}, {node.step})", (Field("id", T.LongType(), False),)
        )

    def _project(self, node: pb.Project) -> Relation:
        child = self.relation(node.input)
        expressions = Expressions(child.fields, "select", standing=child.standing)
        generator = _generator_in(node.expressions)
        inner, generated = child, None
        if generator is not None:
            inner, generated = self._generated(child, expressions, generator)
        columns: list[str] = []
        fields: list[Field] = []
        kept: set[str] = set()
        for expression in node.expressions:
            if expression.HasField("unresolved_star"):
                star = expression.unresolved_star
                if star.HasField("unparsed_target") or star.HasField("plan_id"):
                    raise not_supported("the columns of one of several frames by *", "name them")
                columns += [quoted(f.name) for f in child.fields]
                fields += child.fields
                kept |= {f.name.lower() for f in child.fields}
            elif generated is not None and _generator_of(expression) is not None:
                columns += [f"{sql} AS {quoted(f.name)}" for sql, f in generated]
                fields += [f for _, f in generated]
            else:
                typed = expressions.typed(expression)
                name = _name_of(typed, "select")
                columns.append(f"{typed.sql} AS {quoted(name)}")
                fields.append(Field(name, typed.type, typed.nullable))
                if _attribute(expression).lower() == name.lower():
                    kept.add(name.lower())
        sql = f"SELECT {', '.join(columns)} FROM {inner.source}"
        return Relation(sql, tuple(fields), inner.registered, _standing(child, lambda name: name in kept))

    def _generated(
        self, child: Relation, expressions: Expressions, generator: Generator
    ) -> tuple[Relation, list[tuple[str, Field]]]:
        """The rows once for each item of an array, and the columns that the item makes."""
        function, alias = generator
        array = expressions.typed(function.arguments[0])
        if not isinstance(array.type, T.ArrayType):
            raise not_supported(f"{function.function_name} of {array.type.simpleString()}")
        item, kind = quoted(f"item {uuid.uuid4()}"), array.type.elementType
        inner = Relation(f"SELECT *, unnest({array.sql}) AS {item} FROM {child.source}", child.fields, child.registered)
        if function.function_name == "explode":
            return inner, [(item, Field(alias or "col", kind, array.type.containsNull))]
        if not isinstance(kind, T.StructType):
            raise not_supported(f"inline of {array.type.simpleString()}")
        nullable = array.type.containsNull
        return inner, [
            (f"struct_extract({item}, {text(f.name)})", Field(f.name, f.dataType, f.nullable or nullable)) for f in kind.fields
        ]

    def _filter(self, node: pb.Filter, bounds: Sequence[Bound]) -> Relation:
        child = self.relation(node.input, [*bounds, *bounds_in(node.condition)])
        condition = Expressions(child.fields, "filter", standing=child.standing).condition(node.condition)
        return replace(child, sql=f"SELECT * FROM {child.source} WHERE {condition.sql}")

    def _with_columns(self, node: pb.WithColumns) -> Relation:
        child = self.relation(node.input)
        expressions = Expressions(child.fields, "withColumn", standing=child.standing)
        new: dict[str, tuple[str, Typed]] = {}
        standing = _standing(child, lambda name: name not in {alias.name[0].lower() for alias in node.aliases})
        for alias in node.aliases:
            if _generator_of(alias.expr) is not None:
                raise not_supported("a generator in withColumn", "put it into select")
            new[alias.name[0].lower()] = alias.name[0], expressions.typed(alias.expr)
        columns, fields = [], []
        for old in child.fields:
            name, typed = new.pop(old.name.lower(), (old.name, Typed(quoted(old.name), old.type, old.nullable)))
            columns.append(f"{typed.sql} AS {quoted(name)}")
            fields.append(Field(name, typed.type, typed.nullable))
        for name, typed in new.values():
            columns.append(f"{typed.sql} AS {quoted(name)}")
            fields.append(Field(name, typed.type, typed.nullable))
        sql = f"SELECT {', '.join(columns)} FROM {child.source}"
        return Relation(sql, tuple(fields), child.registered, standing)

    def _with_columns_renamed(self, node: pb.WithColumnsRenamed) -> Relation:
        child = self.relation(node.input)
        names = {rename.col_name.lower(): rename.new_col_name for rename in node.renames}
        names |= {old.lower(): new for old, new in node.rename_columns_map.items()}
        if chained := sorted(names.keys() & {new.lower() for old, new in names.items() if new.lower() != old}):
            raise not_supported(f"a new name that is renamed too ({', '.join(chained)})", "rename in two steps")
        return _renamed(child, [names.get(f.name.lower(), f.name) for f in child.fields])

    def _to_df(self, node: pb.ToDF) -> Relation:
        child = self.relation(node.input)
        if len(node.column_names) != len(child.fields):
            raise EngineError("NUM_COLUMNS_MISMATCH", f"toDF names {len(node.column_names)} columns of {len(child.fields)}")
        return _renamed(child, list(node.column_names))

    def _drop(self, node: pb.Drop) -> Relation:
        child = self.relation(node.input)
        dropped = {name.lower() for name in node.column_names}
        for column in node.columns:
            if not column.HasField("unresolved_attribute"):
                raise not_supported("dropping what is not a column")
            Expressions(child.fields, "drop", standing=child.standing).of_its_frame(column.unresolved_attribute)
            dropped.add(column.unresolved_attribute.unparsed_identifier.strip("`").lower())
        kept = tuple(f for f in child.fields if f.name.lower() not in dropped)
        if not kept:
            raise not_supported("a relation without columns")
        sql = f"SELECT {_listed(kept)} FROM {child.source}"
        return Relation(sql, kept, child.registered, _standing(child, lambda name: name not in dropped))

    def _join(self, node: pb.Join) -> Relation:
        if node.join_type not in JOINS:
            raise not_supported(f"a join of the type {pb.Join.JoinType.Name(node.join_type)}")
        if not node.using_columns:
            raise not_supported("a join by a condition", "join by the names of columns (on=[...])")
        left, right = self.relation(node.left), self.relation(node.right)
        how = JOINS[node.join_type]
        sides = Expressions(left.fields, "the left side of a join"), Expressions(right.fields, "the right side of a join")
        keys = [(name, sides[0].column(name), sides[1].column(name)) for name in node.using_columns]
        for name, one, other in keys:
            if common_type([one.type, other.type], f"the key {name} of a join") != one.type and how != "INNER":
                raise not_supported(f"a join by {name} of two types", "cast one of them first")
        matched = " AND ".join(f"l.{one.sql} = r.{other.sql}" for _, one, other in keys)
        registered = left.registered | right.registered
        if how in ("SEMI", "ANTI"):
            # Spark puts the keys first.
            fields = [left.fields[place] for place in _keys_first(left.fields, node.using_columns)]
            listed = ", ".join(f"l.{quoted(f.name)}" for f in fields)
            sql = f"SELECT {listed} FROM {left.source} l {how} JOIN {right.source} r ON {matched}"
            return Relation(sql, tuple(fields), registered, left.standing)
        columns, fields = [], []
        for name, one, other in keys:
            merged = {"RIGHT": f"r.{other.sql}", "FULL": f"coalesce(l.{one.sql}, r.{other.sql})"}.get(how, f"l.{one.sql}")
            nullable = {"RIGHT": other.nullable, "FULL": one.nullable or other.nullable}.get(how, one.nullable)
            written = sides[how == "RIGHT"].fields[name.lower()].name  # as its side writes it
            columns.append(f"{merged} AS {quoted(written)}")
            fields.append(Field(written, one.type, nullable))
        taken = {name.lower() for name in node.using_columns}
        for side, relation, always in (("l", left, how in ("INNER", "LEFT")), ("r", right, how in ("INNER", "RIGHT"))):
            for f in relation.fields:
                if f.name.lower() not in taken:
                    columns.append(f"{side}.{quoted(f.name)} AS {quoted(f.name)}")
                    fields.append(Field(f.name, f.type, f.nullable or not always))
        sql = f"SELECT {', '.join(columns)} FROM {left.source} l {how} JOIN {right.source} r ON {matched}"
        # Of a plan that is on both sides nobody knows which is meant; a key is that of one side, or of none.
        ours = _standing(left, lambda name: name not in taken or how in ("INNER", "LEFT"))
        theirs = _standing(right, lambda name: name not in taken or how == "RIGHT")
        of_one = {plan: names for plan, names in (ours | theirs).items() if not (plan in ours and plan in theirs)}
        return Relation(sql, tuple(fields), registered, of_one)

    def _set_op(self, node: pb.SetOperation) -> Relation:
        if node.set_op_type != pb.SetOperation.SET_OP_TYPE_UNION or not node.is_all:
            raise not_supported("a set operation other than union")
        left, right = self.relation(node.left_input), self.relation(node.right_input)
        pairs = _paired(left.fields, right.fields, by_name=node.by_name, may_lack=node.allow_missing_columns)
        fields, ours, theirs = [], [], []
        for name, one, other in pairs:
            kind = common_type([f.type for f in (one, other) if f], f"the column {name} of a union")
            fields.append(Field(name, kind, one is None or other is None or one.nullable or other.nullable))
            ours.append(_column_as(one, name, kind))
            theirs.append(_column_as(other, name, kind))
        sql = f"SELECT {', '.join(ours)} FROM {left.source} UNION ALL SELECT {', '.join(theirs)} FROM {right.source}"
        return Relation(sql, tuple(fields), left.registered | right.registered)

    def _aggregate(self, node: pb.Aggregate) -> Relation:
        if node.group_type != pb.Aggregate.GROUP_TYPE_GROUPBY:
            raise not_supported("a grouping other than groupBy")
        child = self.relation(node.input)
        expressions = Expressions(child.fields, "groupBy", standing=child.standing)
        columns, fields, keys = [], [], []
        for grouping in node.grouping_expressions:
            typed = expressions.typed(grouping)
            key = _key(typed.sql, typed.type)
            keys.append(key)
            columns.append(f"{key} AS {quoted(_name_of(typed, 'groupBy'))}")
            fields.append(Field(_name_of(typed, "groupBy"), typed.type, typed.nullable))
        for aggregate in node.aggregate_expressions:
            typed = Expressions(child.fields, "agg", standing=child.standing).typed(aggregate)
            columns.append(f"{typed.sql.replace(OVER, '')} AS {quoted(_name_of(typed, 'agg'))}")
            fields.append(Field(_name_of(typed, "agg"), typed.type, typed.nullable))
        grouped = f" GROUP BY {', '.join(keys)}" if keys else ""
        return Relation(f"SELECT {', '.join(columns)} FROM {child.source}{grouped}", tuple(fields), child.registered)

    def _deduplicate(self, node: pb.Deduplicate) -> Relation:
        child = self.relation(node.input)
        if not node.all_columns_as_keys:
            raise not_supported("dropDuplicates of some columns", "which row stays is left to chance: use a window or groupBy")
        columns = ", ".join(f"{_key(quoted(f.name), f.type)} AS {quoted(f.name)}" for f in child.fields)
        return replace(child, sql=f"SELECT DISTINCT {columns} FROM {child.source}")

    def _drop_na(self, node: pb.NADrop) -> Relation:
        child = self.relation(node.input)
        expressions = Expressions(child.fields, "dropna", standing=child.standing)
        columns = [expressions.column(name) for name in (node.cols or [f.name for f in child.fields])]
        known = [
            f"({c.sql} IS NOT NULL AND NOT isnan({c.sql}))" if isinstance(c.type, FRACTIONAL) else f"({c.sql} IS NOT NULL)"
            for c in columns
        ]
        if node.HasField("min_non_nulls") and node.min_non_nulls == 1:
            condition = " OR ".join(known)
        elif node.HasField("min_non_nulls"):
            raise not_supported("dropna with a threshold")
        else:
            condition = " AND ".join(known)
        return replace(child, sql=f"SELECT * FROM {child.source} WHERE {condition}")

    def _sort(self, node: pb.Sort) -> Relation:
        """In one order, also within partitions: here a relation is one partition."""
        child = self.relation(node.input)
        expressions = Expressions(child.fields, "sort", standing=child.standing)
        orders = ", ".join(expressions.order(order) for order in node.order)
        return replace(child, sql=f"SELECT * FROM {child.source} ORDER BY {orders}")

    def _limit(self, node: pb.Limit) -> Relation:
        child = self.relation(node.input)
        return replace(child, sql=f"SELECT * FROM {child.source} LIMIT {node.limit}")

    def _repartition(self, node: pb.Repartition, bounds: Sequence[Bound]) -> Relation:
        return self.relation(node.input, bounds)

    def _repartition_by_expression(self, node: pb.RepartitionByExpression, bounds: Sequence[Bound]) -> Relation:
        child = self.relation(node.input, bounds)
        Expressions(child.fields, "repartition", standing=child.standing).all_of(
            node.partition_exprs
        )  # a column that is not there is an error
        return child

    def _hint(self, node: pb.Hint, bounds: Sequence[Bound]) -> Relation:
        return self.relation(node.input, bounds)

    def _subquery_alias(self, node: pb.SubqueryAlias, bounds: Sequence[Bound]) -> Relation:
        return self.relation(node.input, bounds)

    def _map_partitions(self, node: pb.MapPartitions) -> Relation:
        child = self.relation(node.input)
        schema = proto_schema_to_pyspark_data_type(node.func.python_udf.output_type)
        if node.func.python_udf.eval_type != MAP_IN_ARROW or not isinstance(schema, T.StructType):
            raise not_supported("mapInPandas and other Python functions", "use mapInArrow")
        name = f"mapped_{next(self._names)}"
        fields = fields_of(schema)
        mapped = Mapped(child, node.func.python_udf.command, fields)
        columns = ", ".join(f"CAST({quoted(f.name)} AS {sql_type(f.type)}) AS {quoted(f.name)}" for f in fields)
        return Relation(f"SELECT {columns} FROM {name}", fields, {name: mapped})


MAP_IN_ARROW = 207  # PythonEvalType.SQL_MAP_ARROW_ITER_UDF


def parquet(files: str, fields: Sequence[Field], hive: str = "") -> str:
    """A SELECT from Parquet files: columns by name, in these types; one that a file lacks is null.

    Args:
        files: an SQL list of their paths.
        fields: the columns.
        hive: more options of read_parquet.
    """
    listed = ", ".join(
        f"{text(f.name)}: {{'name': {text(f.name)}, 'type': {text(sql_type(f.type))}, 'default_value': NULL}}" for f in fields
    )
    return f"SELECT * FROM read_parquet({files}, schema=MAP{{{listed}}}{hive})"


def bounds_in(condition: pb.Expression) -> Iterator[Bound]:
    """What a condition says of single columns: comparisons with a literal that it joins by AND."""
    function = condition.unresolved_function
    if function.function_name == "and":
        for argument in function.arguments:
            yield from bounds_in(argument)
        return
    if not function.arguments or not condition.HasField("unresolved_function"):
        return
    first, *rest = function.arguments
    if function.function_name == "in" and first.HasField("unresolved_attribute"):
        values = [_value(argument) for argument in rest]
        if values and all(value is not None for value in values):
            yield Bound(_attribute(first), "in", values)
        return
    if function.function_name not in MIRRORED or len(rest) != 1:
        return
    (second,) = rest
    if first.HasField("unresolved_attribute") and (value := _value(second)) is not None:
        yield Bound(_attribute(first), function.function_name, value)
    elif second.HasField("unresolved_attribute") and (value := _value(first)) is not None:
        yield Bound(_attribute(second), MIRRORED[function.function_name], value)


def _attribute(expression: pb.Expression) -> str:
    return expression.unresolved_attribute.unparsed_identifier.strip("`")


def _value(expression: pb.Expression) -> Any:
    if not expression.HasField("literal"):
        return None
    literal = expression.literal
    kind = literal.WhichOneof("literal_type")
    if kind == "date":
        return EPOCH + dt.timedelta(days=literal.date)
    if kind == "timestamp":
        return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=literal.timestamp)
    return getattr(literal, kind) if kind in ("integer", "long", "string") else None


def _schema(said: str) -> T.StructType:
    """A schema as JSON or DDL."""
    import json

    try:
        found = T.StructType.fromJson(json.loads(said))
    except ValueError:
        parsed = ddl(said)
        found = parsed if isinstance(parsed, T.StructType) else T.StructType().add("value", parsed)
    return found


DDL_FIELD = re.compile(r"\s*(`[^`]+`|\w+)\s*:?\s+(\w+)(\s+NOT\s+NULL)?\s*(?:,|$)", re.IGNORECASE)


def ddl(said: str) -> T.DataType:
    """A schema as `name type, name type`, of plain types; or the name of one type.

    Raises:
        EngineError: if it is not.
    """
    from pdm_assets.engine.duckdb.expressions import CAST_NAMES

    if said.strip().lower() in CAST_NAMES:
        return CAST_NAMES[said.strip().lower()]
    fields, at = [], 0
    while at < len(said):
        match = DDL_FIELD.match(said, at)
        if match is None or match[2].lower() not in CAST_NAMES:
            raise EngineError("PARSE_SYNTAX_ERROR", f"the DuckDB engine can't read the schema {said!r}: take a StructType")
        fields.append(T.StructField(match[1].strip("`"), CAST_NAMES[match[2].lower()], not match[3]))
        at = match.end()
    return T.StructType(fields)


def _spark_schema(schema: pa.Schema) -> T.StructType:
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(schema, prefer_timestamp_ntz=False)


def _stored(column: pa.ChunkedArray, kind: T.DataType) -> pa.ChunkedArray:
    """An Arrow column as DuckDB reads it: an interval as its microseconds."""
    return column.cast(pa.duration("us")).cast(pa.int64()) if isinstance(kind, T.DayTimeIntervalType) else column


def _unescaped(path: str) -> str:
    """A path as Spark's pattern, without patterns: a backslash takes away the meaning of the next sign."""
    return re.sub(r"\\(.)", r"\1", path)


def _key(sql: str, kind: T.DataType) -> str:
    """A value as the key of a group: -0.0 is 0.0, as in Spark."""
    if isinstance(kind, (T.ArrayType, T.StructType)) and ("double" in kind.simpleString() or "float" in kind.simpleString()):
        raise not_supported(f"groups of {kind.simpleString()}", "group by the values inside")
    return f"({sql} + 0.0::{sql_type(kind)})" if isinstance(kind, FRACTIONAL) else sql


def _generator_in(expressions: Sequence[pb.Expression]) -> Generator | None:
    found = [generator for expression in expressions if (generator := _generator_of(expression)) is not None]
    if len(found) > 1:
        raise not_supported("two generators in one select")
    return found[0] if found else None


def _generator_of(expression: pb.Expression) -> Generator | None:
    alias = None
    if expression.HasField("alias"):
        if len(expression.alias.name) != 1:
            return None
        alias, expression = expression.alias.name[0], expression.alias.expr
    function = expression.unresolved_function
    return (function, alias) if expression.HasField("unresolved_function") and function.function_name in GENERATORS else None


def _name_of(typed: Typed, where: str) -> str:
    if typed.name is None:
        raise not_supported(f"a column without a name in {where}", "give it one with .alias(...)")
    return typed.name


def _listed(fields: Sequence[Field]) -> str:
    return ", ".join(quoted(f.name) for f in fields)


def _renamed(child: Relation, names: Sequence[str]) -> Relation:
    pairs = list(zip(child.fields, names, strict=True))
    columns = ", ".join(f"{quoted(f.name)} AS {quoted(name)}" for f, name in pairs)
    fields = tuple(Field(name, f.type, f.nullable) for f, name in pairs)
    same = {f.name.lower() for f, name in pairs if f.name.lower() == name.lower()}
    return Relation(
        f"SELECT {columns} FROM {child.source}", fields, child.registered, _standing(child, lambda name: name in same)
    )


def _standing(child: Relation, still: Callable[[str], bool]) -> dict[int, frozenset[str]]:
    """The columns of earlier plans of which it is still true that they stand."""
    return {plan: frozenset(name for name in names if still(name)) for plan, names in child.standing.items()}


def _keys_first(fields: Sequence[Field], keys: Sequence[str]) -> list[int]:
    names = [f.name.lower() for f in fields]
    first = [names.index(key.lower()) for key in keys]
    return [*first, *(place for place in range(len(names)) if place not in first)]


def _paired(
    left: Sequence[Field], right: Sequence[Field], *, by_name: bool, may_lack: bool
) -> list[tuple[str, Field | None, Field | None]]:
    if not by_name:
        if len(left) != len(right):
            raise EngineError("NUM_COLUMNS_MISMATCH", f"a union of {len(left)} and {len(right)} columns")
        return [(one.name, one, other) for one, other in zip(left, right, strict=True)]
    theirs = {f.name.lower(): f for f in right}
    ours = {f.name.lower() for f in left}
    lacking = [f.name for f in left if f.name.lower() not in theirs] + [f.name for f in right if f.name.lower() not in ours]
    if lacking and not may_lack:
        raise EngineError("UNRESOLVED_COLUMN.WITH_SUGGESTION", f"unionByName: one side has no column {', '.join(lacking)}")
    pairs: list[tuple[str, Field | None, Field | None]] = [(f.name, f, theirs.get(f.name.lower())) for f in left]
    return pairs + [(f.name, None, f) for f in right if f.name.lower() not in ours]


def _column_as(field_: Field | None, name: str, kind: T.DataType) -> str:
    typed = Typed("NULL", T.NullType()) if field_ is None else Typed(quoted(field_.name), field_.type, field_.nullable)
    return f"{cast(typed, kind).sql} AS {quoted(name)}"
