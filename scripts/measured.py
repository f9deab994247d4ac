"""What `make bench` and `make bytes` measured, as lines: fixed + per machine, or per machine day. Read by plan_capacity.py."""

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from pdm_assets.models.windows import first_possible_cutoff
from pdm_assets.settings import Settings

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
MIB, GIB = 2**20, 2**30

STAGE_OF_STEP = {
    "observations": "features",
    "component_failures": "labels",
    "failure_model": "model in force",
    "component_risk": "scores",
    "maintenance": "worklist",
    "realised_performance": "monitoring",
    "feature_drift": "monitoring",
}
REST = "process, checks"
# first words of the row of a range -> stage; those of the second kind are in newer results only
RANGES = {"landing to raw": "raw", "raw to features": "features", "labels": "labels", "scores": "scores"}
NEWER_RANGES = {"worklist": "worklist", "monitoring": "monitoring"}
OF_SCORED_DAYS = ("scores", "worklist", "monitoring")
LOGS, COMPRESSED, MODEL_FOLDER = "Delta logs", "landing, if it were .csv.gz", "a model's folder, by training"
# what does not grow with the fleet, for where bytes of one size only were measured: a commit or a run each, a row a feature
OF_ANY_FLEET = (LOGS, MODEL_FOLDER, "dagster", "reports", "lake/models", "lake/monitoring")
BYTES_NEEDED = ("landing", "staging", "lake/raw", "lake/features", "lake/labels", "lake/scores", LOGS, COMPRESSED, MODEL_FOLDER)


class PlanError(ValueError):
    """The plan can't be made; the text says what is missing and which command makes it."""


@dataclass(frozen=True)
class Timed:
    """A row of results.md that has a time: seconds, and those of each step."""

    what: str
    seconds: float
    steps: Mapping[str, float]

    def of_steps(self, prefix: str) -> float:
        """Seconds of the steps whose name begins so."""
        return sum(seconds for step, seconds in self.steps.items() if step.startswith(prefix))


@dataclass(frozen=True)
class Fleet:
    """A section of results.md."""

    machines: int
    days: int
    cores: int
    memory_gib: int
    rows: tuple[tuple[str, ...], ...]  # what, its value, its steps

    def values(self, first_words: str, *, optional: bool = False) -> list[tuple[str, ...]]:
        """The rows that begin with some words.

        Raises:
            PlanError: if there is none.
        """
        found = [row for row in self.rows if row[0].startswith(first_words)]
        if not found and not optional:
            raise PlanError(
                f"benchmarks/results.md has no row '{first_words} ...' for {self.machines} machines: "
                f"`make bench MACHINES={self.machines}` writes it"
            )
        return found

    def times(self, first_words: str, *, optional: bool = False) -> list[Timed]:
        """The rows that begin with some words, as times."""
        return [self._timed(*row) for row in self.values(first_words, optional=optional)]

    def number(self, first_words: str, pattern: str) -> float:
        """A number in the value of the first row that begins with some words."""
        what, value, _ = self.values(first_words)[0]
        return self._number(what, value, pattern)

    def _timed(self, what: str, value: str, steps: str) -> Timed:
        by_step = {name: float(seconds) for name, seconds in re.findall(r"(\w+) ([\d.]+)(?:,|$)", steps)}
        return Timed(what, self._number(what, value, r"([\d,.]+) s$"), by_step)

    def _number(self, what: str, value: str, pattern: str) -> float:
        if (found := re.search(pattern, value)) is None:
            raise PlanError(
                f"benchmarks/results.md, {self.machines} machines, row '{what}': {value!r} can't be read; "
                f"`make bench MACHINES={self.machines}` writes it anew"
            )
        return float(found[1].replace(",", ""))


def read_times(text: str) -> list[Fleet]:
    """The fleets of results.md, the smallest first.

    Raises:
        PlanError: if there are fewer than two sizes, or a section doesn't say on how large a machine it was measured.
    """
    fleets = []
    for section in text.split("\n## ")[1:]:
        head = re.match(r"(\d+) machines x (\d+) days\n", section)
        if head is None:
            continue
        machine = re.search(r"^(\d+) cores, (\d+) GiB", section, re.MULTILINE)
        if machine is None:
            raise PlanError(
                f"benchmarks/results.md, {head[1]} machines: no line such as '2 cores, 23 GiB, ...'; "
                f"`make bench MACHINES={head[1]}` writes it"
            )
        fleets.append(Fleet(int(head[1]), int(head[2]), int(machine[1]), int(machine[2]), _cells(section, 3)))
    if len({fleet.machines for fleet in fleets}) < 2:
        raise PlanError(
            "benchmarks/results.md needs fleets of two sizes, else fixed and per machine can't be told apart: "
            "`make bench MACHINES=100` and `make bench MACHINES=1000` write them"
        )
    if len({(fleet.cores, fleet.memory_gib) for fleet in fleets}) > 1:
        raise PlanError("benchmarks/results.md has fleets measured on different machines: run `make bench` of all on one")
    return sorted(fleets, key=lambda fleet: fleet.machines)


def read_bytes(text: str) -> dict[int, dict[str, int]]:
    """Bytes that a new day adds, by fleet and folder, from bytes.md.

    Raises:
        PlanError: if there is no fleet, or a row is missing.
    """
    found: dict[int, dict[str, int]] = {}
    for section in text.split("\n## ")[1:]:
        if head := re.match(r"(\d+) machines\n", section):
            found[int(head[1])] = {what: int(n.replace(",", "")) for what, n in _cells(section, 2) if n[:1].isdigit()}
    if not found:
        raise PlanError("benchmarks/bytes.md has no fleet: `make bytes MACHINES=100` and `make bytes MACHINES=1000` write them")
    for machines, rows in found.items():
        if missing := [what for what in BYTES_NEEDED if what not in rows]:
            raise PlanError(
                f"benchmarks/bytes.md has no row '{missing[0]}' for {machines} machines: "
                f"`make bytes MACHINES={machines}` writes it"
            )
    return found


def _cells(section: str, columns: int) -> tuple[tuple[str, ...], ...]:
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    split = [tuple(cell.strip() for cell in line.strip().strip("|").split("|")) for line in lines[2:] if line.endswith("|")]
    return tuple((*cells, *[""] * columns)[:columns] for cells in split)


@dataclass(frozen=True)
class Line:
    """y = fixed + each * x."""

    fixed: float
    each: float

    def at(self, x: float) -> float:
        """The y of an x."""
        return self.fixed + self.each * x


def fit(points: Iterable[tuple[float, float]]) -> Line:
    """The line through (x, y) by least squares, neither coefficient below zero."""
    points = list(points)
    xs, ys = [x for x, _ in points], [y for _, y in points]
    around = sum((x - mean(xs)) ** 2 for x in xs)
    each = sum((x - mean(xs)) * (y - mean(ys)) for x, y in points) / around if around else 0.0
    free = Line(mean(ys) - each * mean(xs), each)
    if free.fixed >= 0 and free.each >= 0:
        return free
    squares = sum(x * x for x in xs)
    edges = Line(mean(ys), 0.0), Line(0.0, sum(x * y for x, y in points) / squares if squares else 0.0)
    return min(edges, key=lambda line: sum((line.at(x) - y) ** 2 for x, y in points))


@dataclass(frozen=True)
class Model:
    """What was measured, as lines. Seconds are those of a machine with `cores` cores.

    Attributes:
        ranges: by stage, seconds of a run over many days, by machine days.
        staging: seconds per machine day in which landed files are staged: one process does that.
        new_day: by stage, the fixed seconds of a new day, engine warm.
        cold: seconds more when the engine must start.
        engine_start: seconds until an engine answers.
        training: seconds of a training, by machines.
        engine_bytes: memory of the engine, by machine days of its largest run.
        stored: bytes that a new day adds, by folder and machines.
        stored_of: the fleets whose bytes were measured.
        lakes: (machines, days, bytes) of the lakes of results.md, to hold the lines against.
    """

    cores: int
    memory_gib: int
    largest: int
    largest_run: int
    ranges: Mapping[str, Line]
    staging: float
    new_day: Mapping[str, float]
    cold: float
    engine_start: float
    training: Line
    engine_bytes: Line
    stored: Mapping[str, Line]
    stored_of: tuple[int, ...]
    lakes: tuple[tuple[int, int, float], ...]

    @classmethod
    def of(cls, fleets: Sequence[Fleet], stored: Mapping[int, Mapping[str, int]]) -> "Model":
        """Fit it.

        Raises:
            PlanError: if a row is missing.
        """
        ranges = {stage: _range(fleets, words) for words, stage in RANGES.items()}
        ranges |= {
            stage: _range(fleets, words)
            for words, stage in NEWER_RANGES.items()
            if all(fleet.times(words, optional=True) for fleet in fleets)
        }
        again = fit((f.machines * f.days, f.times("all of it once more")[0].of_steps("land_")) for f in fleets)
        warm, cold = _new_days(fleets), []
        for fleet in fleets:
            usual = median(row.seconds for row in _warm(fleet))
            cold.append(max(0.0, fleet.times("a new day")[0].seconds - usual))
        fixed = {stage: mean(max(0.0, s - _each_day(ranges, stage) * m) for m, s in points) for stage, points in warm.items()}
        memory = fit((f.machines * f.days, f.number("memory of the engine", r"([\d.]+) GiB") * GIB) for f in fleets)
        folders = sorted(set.intersection(*(set(rows) for rows in stored.values())))
        return cls(
            cores=fleets[0].cores,
            memory_gib=fleets[0].memory_gib,
            largest=fleets[-1].machines,
            largest_run=max(f.machines * f.days for f in fleets),
            ranges=ranges,
            staging=max(0.0, ranges["raw"].each - again.each),
            new_day=fixed,
            cold=mean(cold),
            engine_start=mean(f.times("engine start")[0].seconds for f in fleets),
            training=fit((f.machines, f.times("models")[0].seconds) for f in fleets),
            engine_bytes=memory,
            stored={folder: _bytes(folder, {m: rows[folder] for m, rows in stored.items()}) for folder in folders},
            stored_of=tuple(sorted(stored)),
            lakes=tuple((f.machines, f.days, f.number("files in the lake", r"([\d,]+) MiB") * MIB) for f in fleets),
        )

    @property
    def memory_grows(self) -> bool:
        """Whether larger fleets took more of the engine's memory; a heap full of garbage up to its limit tells nothing."""
        return self.engine_bytes.each > 0

    def lake(self, machines: int, days: int) -> float:
        """Bytes of the Parquet files in the lake of `make bench`, by the lines: it has written each day twice."""
        scored = max(0, days - days_before_a_model())
        days_of = {"lake/scores": scored, "lake/worklist": scored, "lake/monitoring": scored}
        lines = {folder: line for folder, line in self.stored.items() if folder.startswith("lake/")}
        return sum(2 * days_of.get(folder, days) * line.at(machines) for folder, line in lines.items())


def _range(fleets: Sequence[Fleet], first_words: str) -> Line:
    points = []
    for fleet in fleets:
        row = fleet.times(first_words)[0]
        days = fleet.days
        if last := re.search(r"the last (\d+) days", row.what):
            days = int(last[1])
        elif first_words in OF_SCORED_DAYS:  # a day before the first model has no scores
            days = max(1, fleet.days - days_before_a_model())
        points.append((fleet.machines * days, row.seconds))
    return fit(points)


def _bytes(folder: str, by_machines: Mapping[int, int]) -> Line:
    """The line through the fleets that were measured; of one alone, in proportion to it, or the same for any fleet."""
    if len(by_machines) > 1:
        return fit(by_machines.items())
    [(machines, size)] = by_machines.items()
    return Line(size, 0.0) if folder in OF_ANY_FLEET else Line(0.0, size / machines)


def days_before_a_model() -> int:
    """Days of history that a first model needs, with the windows that `make bench` runs with: the default ones."""
    first = dt.date(2000, 1, 1)
    return (first_possible_cutoff(first, Settings()) - first).days


def _warm(fleet: Fleet) -> list[Timed]:
    return fleet.times("new day")


def _new_days(fleets: Sequence[Fleet]) -> dict[str, list[tuple[int, float]]]:
    """By stage, the median seconds of the new days of each fleet: (machines, seconds)."""
    found: dict[str, list[tuple[int, float]]] = {stage: [] for stage in ("raw", *STAGE_OF_STEP.values(), REST)}
    for fleet in fleets:
        days = [_by_stage(row) for row in _warm(fleet)]
        for stage, points in found.items():
            points.append((fleet.machines, median(day[stage] for day in days)))
    return found


def _by_stage(row: Timed) -> dict[str, float]:
    stages = dict.fromkeys(("raw", *STAGE_OF_STEP.values()), 0.0)
    stages["raw"] = row.of_steps("land_")
    for step, seconds in row.steps.items():
        if stage := STAGE_OF_STEP.get(step):
            stages[stage] += seconds
    return {**stages, REST: max(0.0, row.seconds - sum(stages.values()))}


def _each_day(ranges: Mapping[str, Line], stage: str) -> float:
    return ranges[stage].each if stage in ranges else 0.0


def measured(folder: Path = FOLDER) -> Model:
    """The model of what was measured: results.md and bytes.md of a folder.

    Raises:
        PlanError: if something is missing in it.
    """
    for name, command in (("results.md", "make bench"), ("bytes.md", "make bytes")):
        if not (folder / name).exists():
            raise PlanError(f"{folder / name} is not there: `{command} MACHINES=100` and `{command} MACHINES=1000` write it")
    return Model.of(read_times((folder / "results.md").read_text()), read_bytes((folder / "bytes.md").read_text()))
