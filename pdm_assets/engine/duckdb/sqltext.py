"""The little SQL that comes as text: the rules of tables, such as `volt BETWEEN 0.0 AND 1000.0` or `code IN ('a', 'b')`.

Grammar: terms joined by AND, OR and NOT with brackets; a term is a comparison, BETWEEN, IN or IS [NOT] NULL of a column and
literals. Anything else is refused.
"""

import re
from collections.abc import Iterator

import pyspark.sql.connect.proto as pb

from pdm_assets.engine.duckdb.errors import EngineError

TOKENS = re.compile(
    r"\s*(?:(?P<number>-?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)|'(?P<text>(?:[^'\\])*)'|`(?P<quoted>[^`]+)`"
    r"|(?P<word>[A-Za-z_]\w*)|(?P<sign><=>|<=|>=|<>|!=|==|=|<|>|\(|\)|,))"
)
COMPARISONS = {"=": "==", "==": "==", "<>": "!=", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">=", "<=>": "<=>"}
WORDS = frozenset({"AND", "OR", "NOT", "BETWEEN", "IN", "IS", "NULL", "TRUE", "FALSE", "DATE"})


def parse(sql: str) -> pb.Expression:
    """The text as an expression of the protocol.

    Raises:
        EngineError: if it is not in the grammar.
    """
    parser = _Parser(sql)
    found = parser.any_of()
    if parser.kind:
        raise parser.refused()
    return found


class _Parser:
    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.tokens = self._split()
        self.kind, self.value = "", ""
        self.next()

    def _split(self) -> Iterator[tuple[str, str]]:
        at = 0
        while self.sql[at:].strip():
            match = TOKENS.match(self.sql, at)
            if match is None:
                raise self.refused(self.sql[at:].strip()[:20])
            at = match.end()
            kind = str(match.lastgroup)
            yield kind, match[kind]
        yield "", ""

    def refused(self, found: str | None = None) -> EngineError:
        what = self.value if found is None else found
        return EngineError("PARSE_SYNTAX_ERROR", f"the DuckDB engine can't read {what!r} in the SQL text {self.sql!r}")

    def next(self) -> tuple[str, str]:
        was = self.kind, self.value
        self.kind, self.value = next(self.tokens)
        return was

    def is_word(self, *words: str) -> bool:
        return self.kind == "word" and self.value.upper() in words

    def take_word(self, *words: str) -> str:
        if not self.is_word(*words):
            raise self.refused()
        return self.next()[1].upper()

    def take_sign(self, sign: str) -> None:
        if (self.kind, self.value) != ("sign", sign):
            raise self.refused()
        self.next()

    def any_of(self) -> pb.Expression:
        found = self.all_of()
        while self.is_word("OR"):
            self.next()
            found = call("or", found, self.all_of())
        return found

    def all_of(self) -> pb.Expression:
        found = self.term()
        while self.is_word("AND"):
            self.next()
            found = call("and", found, self.term())
        return found

    def term(self) -> pb.Expression:
        if self.is_word("NOT"):
            self.next()
            return call("not", self.term())
        if (self.kind, self.value) == ("sign", "("):
            self.next()
            found = self.any_of()
            self.take_sign(")")
            return found
        left = self.operand()
        if self.kind == "sign" and self.value in COMPARISONS:
            return call(COMPARISONS[self.next()[1]], left, self.operand())
        if self.is_word("IS"):
            self.next()
            name = "isNotNull" if self.is_word("NOT") and self.next() else "isNull"
            self.take_word("NULL")
            return call(name, left)
        negated = self.is_word("NOT") and bool(self.next())
        found = self._between(left) if self.take_word("BETWEEN", "IN") == "BETWEEN" else self._in(left)
        return call("not", found) if negated else found

    def _between(self, left: pb.Expression) -> pb.Expression:
        low = self.operand()
        self.take_word("AND")
        return call("and", call(">=", left, low), call("<=", left, self.operand()))

    def _in(self, left: pb.Expression) -> pb.Expression:
        self.take_sign("(")
        values = [self.operand()]
        while (self.kind, self.value) == ("sign", ","):
            self.next()
            values.append(self.operand())
        self.take_sign(")")
        return call("in", left, *values)

    def operand(self) -> pb.Expression:
        found = pb.Expression()
        if self.kind == "number":
            number = self.next()[1]
            if re.fullmatch(r"-?\d+", number):
                kind = "integer" if -(2**31) <= int(number) < 2**31 else "long"
                setattr(found.literal, kind, int(number))
            else:
                found.literal.double = float(number)
        elif self.kind == "text":
            found.literal.string = self.next()[1]
        elif self.is_word("TRUE", "FALSE"):
            found.literal.boolean = self.next()[1].upper() == "TRUE"
        elif self.is_word("DATE"):
            import datetime as dt

            self.next()
            if self.kind != "text":
                raise self.refused()
            found.literal.date = (dt.date.fromisoformat(self.next()[1]) - dt.date(1970, 1, 1)).days
        elif self.kind == "quoted" or (self.kind == "word" and self.value.upper() not in WORDS):
            kind, name = self.next()
            found.unresolved_attribute.unparsed_identifier = f"`{name}`" if kind == "quoted" else name
        else:
            raise self.refused()
        return found


def call(name: str, *arguments: pb.Expression) -> pb.Expression:
    """A function call of the protocol."""
    found = pb.Expression()
    found.unresolved_function.function_name = name
    found.unresolved_function.arguments.extend(arguments)
    return found
