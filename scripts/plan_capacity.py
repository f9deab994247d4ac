"""What a fleet costs in compute and storage, planned from what was measured: benchmarks/results.md and benchmarks/bytes.md.

    .venv/bin/python scripts/plan_capacity.py --machines 5000 --cores 8 --memory-gib 32
    .venv/bin/python scripts/plan_capacity.py --write docs/cost.md      # `make cost`

Each stage of the work is a line, fixed + per machine day, through the fleets that were measured. What lies beyond the largest
of them is a model and is called so. docs/cost.md says what the model assumes. Prices are examples until you give yours.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measured import (
    COMPRESSED,
    FOLDER,
    GIB,
    LOGS,
    MIB,
    MODEL_FOLDER,
    NEWER_RANGES,
    OF_SCORED_DAYS,
    REST,
    Model,
    PlanError,
    days_before_a_model,
    measured,
)

from pdm_assets.settings import Settings

BEGIN, END = "<!-- made by `make cost` -->", "<!-- end of what `make cost` made -->"
DEFAULTS = Settings()
FLEETS = (1_000, 10_000, 100_000)
FARTHEST = 200  # times the largest measured fleet: beyond it not even a model is asked
YEAR = 365
MEMORY = "a training fits the memory"
DAYS_A_MONTH = 365.25 / 12
ENGINE = "engine start"
TRAINING = "training"
BY_READINGS = ("landing", "staging", "lake/raw", "lake/quarantine")
BY_OBSERVATIONS = ("lake/features", "lake/labels", "lake/scores")
NAMED_BY_MODELS = ("lake/features", "lake/labels")  # their replaced files stay while a model names a version

# Of the platform; the tests hold them against it.
FEW_MACHINE_DAYS = 10_000  # resources/lake.py: a run of more gets generated code and adaptive plans, and takes longer to plan
MAX_DAYS_A_RUN = 400  # automation/plan.py
MEASURED_CADENCE = 12  # what `make bench` runs with: the default
NEIGHBOURS_FROM_HOURS = 12  # below it features come from range frames,
RANGE_FRAMES = 2.0  # "Neighbours instead of range frames: twice as fast" (transforms/features.py)
MANY_ROWS_EXTRA_S = 15.0  # docs/performance.md: a new day went from 41 s to 26 s, mostly by what runs of few rows do without
# A training brings the rows of its calibration and test windows here (models/training.py): 20 columns of 8 bytes, as a table,
# its sorted copy, the rows of each window and the arrays that come of them.
TRAINING_ROW_BYTES, TRAINING_COPIES = 160, 4
MAX_RESULT_BYTES = GIB  # spark.driver.maxResultSize, which nothing here changes


@dataclass(frozen=True)
class Plan:
    """A fleet's plan: what is given, with the platform's defaults."""

    machines: int
    cores: int
    memory_gib: float
    cadence_hours: int = DEFAULTS.cadence_hours
    readings_per_hour: float = 1.0
    days_kept: int = YEAR
    keep_days: int = DEFAULTS.keep_days
    runs_per_day: int = 1
    days_per_run: int = 1
    idle_minutes: float = DEFAULTS.spark_idle_minutes
    retrain_every_days: int = DEFAULTS.retrain_every_days
    model_types: int = 0
    window_hours: float = 1.0
    backfill_hours: float = 24.0
    price_core_hour: float = 0.05
    price_gib_month: float = 0.02
    compressed: bool = False

    @property
    def observations(self) -> float:
        """Observations of a machine, in those of the cadence that was measured."""
        return MEASURED_CADENCE / self.cadence_hours

    @property
    def engine_is_cold(self) -> bool:
        """Whether the engine has stopped for want of work by the time of the next run."""
        return 24 * 60 / self.runs_per_day > self.idle_minutes


@dataclass(frozen=True)
class Needs:
    """What a plan comes to. Seconds are of the clock; those of cores are of the cores held meanwhile, busy or not."""

    plan: Plan
    by_stage: Mapping[str, float]
    training: float
    backfill: float
    backfill_runs: int
    backfill_serial: float
    engine_bytes: float | None  # None: not known
    engine_bytes_training: float | None
    training_bytes: float
    training_result_bytes: float
    written_a_day: float
    kept: Mapping[str, float]

    @property
    def new_day(self) -> float:
        """Seconds from the landed file to the worklist."""
        return sum(self.by_stage.values())

    @property
    def core_seconds(self) -> dict[str, float]:
        """Core-seconds a day by stage, trainings shared out over the days."""
        plan = self.plan
        runs = {stage: seconds * plan.runs_per_day * plan.cores for stage, seconds in self.by_stage.items()}
        trainings = 1 / plan.retrain_every_days + plan.model_types / DAYS_A_MONTH
        return {**runs, TRAINING: self.training * trainings * plan.cores}

    @property
    def cost_of_runs(self) -> float:
        """A day's compute where only the time of runs is paid."""
        return sum(self.core_seconds.values()) / 3600 * self.plan.price_core_hour

    @property
    def cost_of_machine(self) -> float:
        """A day's compute where the cores are held day and night."""
        return self.plan.cores * 24 * self.plan.price_core_hour

    @property
    def cost_of_storage(self) -> float:
        """A day of what is kept."""
        return sum(self.kept.values()) / GIB * self.plan.price_gib_month / DAYS_A_MONTH

    @property
    def memory_of_training(self) -> float:
        """Bytes of the engine, as far as known, and of the run's process while a model is trained."""
        return (self.engine_bytes_training or 0.0) + self.training_bytes

    @property
    def troubles(self) -> list[str]:
        """Why one machine does not do; empty where it does."""
        plan, found = self.plan, []
        window, memory = plan.window_hours * 3600, plan.memory_gib * GIB
        if self.new_day * plan.runs_per_day > 24 * 3600:
            found.append("the runs of a day take longer than the day")
        if self.new_day > window:
            found.append(f"a run takes longer than {plan.window_hours:g} h")
        elif self.new_day + self.training > window:
            found.append(f"a run that trains takes longer than {plan.window_hours:g} h")
        if self.backfill > plan.backfill_hours * 3600:
            alone = "" if self.backfill_serial <= plan.backfill_hours * 3600 else ", and its serial part alone does"
            found.append(f"the backfill takes longer than {plan.backfill_hours:g} h{alone}")
        if self.engine_bytes is not None and self.engine_bytes > memory:
            found.append(f"a run needs more than {plan.memory_gib:g} GiB")
        elif self.memory_of_training > memory:
            found.append(f"a training needs more than {plan.memory_gib:g} GiB")
        if self.training_result_bytes > MAX_RESULT_BYTES:
            found.append("a training's rows exceed spark.driver.maxResultSize")
        return found


def needs(model: Model, plan: Plan) -> Needs:
    """What a plan comes to."""
    speed = model.cores / plan.cores  # of what Spark splits; the rest is no faster on more cores
    serial, split = _per_machine_day(model, plan)
    machine_days = plan.machines * plan.days_per_run
    by_stage = {
        stage: model.new_day[stage] + machine_days * (serial.get(stage, 0.0) + split.get(stage, 0.0) * speed)
        for stage in model.new_day
    }
    by_stage[REST] += MANY_ROWS_EXTRA_S if machine_days > FEW_MACHINE_DAYS else 0.0
    by_stage[ENGINE] = model.cold if plan.engine_is_cold else 0.0

    training = model.training.fixed + model.training.each * plan.machines * plan.observations
    largest_run = model.largest_run * plan.memory_gib / model.memory_gib
    days_a_run = int(min(YEAR, MAX_DAYS_A_RUN, max(1, largest_run // plan.machines)))
    runs = -(-YEAR // days_a_run)
    scored = max(1, YEAR - days_before_a_model())
    days = {stage: scored if stage in OF_SCORED_DAYS else YEAR for stage in model.ranges}
    trainings = 1 + (scored - 1) // plan.retrain_every_days
    fixed = sum(line.fixed for line in model.ranges.values()) * runs + model.engine_start + training * trainings
    backfill_serial = fixed + sum(plan.machines * days[stage] * serial.get(stage, 0.0) for stage in days)
    backfill = backfill_serial + sum(plan.machines * days[stage] * split[stage] * speed for stage in days)

    judged = plan.machines * (DEFAULTS.calibration_days + DEFAULTS.test_days) * 24 / plan.cadence_hours
    written, kept = _stored(model, plan)

    def engine_bytes(machine_days: float) -> float | None:
        return model.engine_bytes.at(machine_days) if model.memory_grows or machine_days <= model.largest_run else None

    return Needs(
        plan=plan,
        by_stage=by_stage,
        training=training,
        backfill=backfill,
        backfill_runs=runs,
        backfill_serial=backfill_serial,
        engine_bytes=engine_bytes(plan.machines * max(days_a_run, plan.days_per_run)),
        engine_bytes_training=engine_bytes(plan.machines * days_before_a_model() * plan.observations),
        training_bytes=judged * TRAINING_ROW_BYTES * TRAINING_COPIES,
        training_result_bytes=judged * TRAINING_ROW_BYTES,
        written_a_day=written,
        kept=kept,
    )


def _per_machine_day(model: Model, plan: Plan) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds per machine day by stage, on the measured cores: what one process does, and what Spark splits."""
    frames = RANGE_FRAMES if plan.cadence_hours < NEIGHBOURS_FROM_HOURS else 1.0
    more = {"raw": plan.readings_per_hour, "features": max(plan.readings_per_hour, plan.observations) * frames}
    each = {stage: line.each * more.get(stage, plan.observations) for stage, line in model.ranges.items()}
    staging = model.staging * more["raw"]
    return {"raw": staging}, {**each, "raw": max(0.0, each["raw"] - staging)}


def _stored(model: Model, plan: Plan) -> tuple[float, dict[str, float]]:
    """Bytes written a day, and kept by folder. Each of a day's runs writes the day anew, up to then: half of it on average."""
    written, kept = 0.0, {}
    for folder, line in model.stored.items():
        if folder in (COMPRESSED, MODEL_FOLDER):
            continue
        its = model.stored[COMPRESSED] if folder == "landing" and plan.compressed else line
        more = plan.readings_per_hour if folder in BY_READINGS else plan.observations if folder in BY_OBSERVATIONS else 1.0
        size = its.fixed + its.each * plan.machines * more
        writes, dead = 1.0, 0.0
        if folder in (LOGS, "dagster"):  # a commit or an event a run, whatever is in it
            writes = plan.runs_per_day
        elif folder.startswith("lake/"):
            writes, dead = (plan.runs_per_day + 1) / 2, (plan.runs_per_day - 1) / 2
        written += size * writes
        days = plan.days_kept * (plan.runs_per_day if folder in (LOGS, "dagster") else 1)
        kept_dead = plan.days_kept if folder in NAMED_BY_MODELS else min(plan.keep_days, plan.days_kept)
        kept[folder] = size * (days + dead * kept_dead)
    models = -(-plan.days_kept // plan.retrain_every_days)
    kept["models"] = model.stored[MODEL_FOLDER].at(plan.machines) * models
    return written + kept["models"] / plan.days_kept, kept


def largest_that(holds: Callable[[int], bool], most: int) -> int:
    """The largest fleet for which something holds that holds for no larger one; 0 if for none."""
    if holds(most):
        return most
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def told(model: Model, plans: Sequence[Plan]) -> str:
    """The plan as Markdown: the fleets, how large one machine bears, what is worth turning."""
    found = [needs(model, plan) for plan in plans]
    parts = _assumed(model, plans[0]), _fleets(model, found), _limits(model, plans[0]), _turns(model, plans[len(plans) // 2])
    return "\n\n".join(parts) + "\n"


def _assumed(model: Model, plan: Plan) -> str:
    left_out = [stage for stage in NEWER_RANGES.values() if stage not in model.ranges]
    checks = "; ".join(
        f"{machines:,} machines, {_size(model.lake(machines, days))} modelled and {_size(size)} measured"
        for machines, days, size in model.lakes
    )
    gaps = f" Not in these measurements: {', '.join(left_out)}, so they count nothing." if left_out else ""
    if len(model.stored_of) == 1:
        gaps += (
            f" **Bytes were measured of {model.stored_of[0]:,} machines only**: logs, Dagster's history, reports, models and "
            "monitoring are taken to be the same for any fleet, all else in proportion, which is more than it will be. "
            "`make bytes MACHINES=1000` gives the second size."
        )
    if not model.memory_grows:
        gaps += (
            " **The engine's memory was no larger for the larger fleet**: what its heap may have it takes, so of the memory of "
            "fleets beyond those nothing is known."
        )
    words = {
        "cadence_hours": "h between observations",
        "readings_per_hour": "readings an hour",
        "runs_per_day": "runs a day",
        "days_per_run": "days in a run",
        "retrain_every_days": "days between trainings",
        "model_types": "model types in the monthly backtest",
        "days_kept": "days kept",
        "keep_days": "days of replaced files",
    }
    turned = ", ".join(f"{getattr(plan, name):g} {said}" for name, said in words.items())
    return (
        f"Measured on {model.cores} cores and {model.memory_gib} GiB with up to {model.largest:,} machines and "
        f"{model.largest_run:,} machine days in a run.{gaps} Planned for {plan.cores} cores and {plan.memory_gib:g} GiB: "
        f"{turned}.\n\n"
        f"**Prices are round examples, no vendor's: {plan.price_core_hour:g} a core-hour, {plan.price_gib_month:g} a "
        "GiB-month.** Give yours with `--price-core-hour` and `--price-gib-month`.\n\n"
        f"A check of the bytes. The benchmark wrote each day of its lakes twice, and both copies are there: {checks}."
    )


def how_known(model: Model, plan: Plan) -> str:
    """Whether a fleet's figures rest on measurements of such a fleet."""
    beyond = plan.machines / model.largest
    parts = [f"modelled: {_times(beyond)} times the largest measured"] if beyond > 1 else ["within what was measured"]
    if plan.machines > model.stored_of[-1] != model.largest:
        parts.append(f"bytes modelled: {_times(plan.machines / model.stored_of[-1])} times the largest measured")
    if plan.cores != model.cores:
        parts.append(f"modelled: {plan.cores} cores, not {model.cores}")
    if plan.cadence_hours != MEASURED_CADENCE or plan.readings_per_hour != 1:
        parts.append("modelled: another cadence or more readings")
    return "; ".join(parts)


def _fleets(model: Model, found: Sequence[Needs]) -> str:
    def row(what: str, value: Callable[[Needs], str]) -> list[str]:
        return [what, *(value(its) for its in found)]

    stages = [stage for stage in found[0].core_seconds if any(its.core_seconds[stage] >= 0.5 for its in found)]
    folders = [folder for folder in found[0].kept if any(its.kept[folder] >= MIB for its in found)]
    days = found[0].plan.days_kept
    rows = [
        ["", *(f"{its.plan.machines:,} machines" for its in found)],
        row("known how", lambda its: how_known(model, its.plan)),
        row(f"a new day, engine {'cold' if found[0].plan.engine_is_cold else 'warm'}", lambda its: _time(its.new_day)),
        row("a training", lambda its: _time(its.training)),
        row("a backfill of a year", lambda its: f"{_time(its.backfill)} in {its.backfill_runs} run(s)"),
        *([f"core-seconds a day: {stage}", *(f"{its.core_seconds[stage]:,.0f}" for its in found)] for stage in stages),
        row("core-seconds a day, all", lambda its: f"{sum(its.core_seconds.values()):,.0f}"),
        row("written a day", lambda its: _size(its.written_a_day)),
        *([f"kept after {days} days: {folder}", *(_size(its.kept[folder]) for its in found)] for folder in folders),
        row(f"kept after {days} days, all", lambda its: _size(sum(its.kept.values()))),
        row("memory: engine, in the runs of a backfill", lambda its: _size_if_known(its.engine_bytes)),
        row("memory: engine, in a training", lambda its: _size_if_known(its.engine_bytes_training)),
        row("memory: the run's own process (driver), in a training; computed", lambda its: _size(its.training_bytes)),
        row("does one machine do", lambda its: "; ".join(its.troubles) or "yes"),
        row("cost a day: runs, where only they are paid", lambda its: _cost(its.cost_of_runs)),
        row("cost a day: the machine, held day and night", lambda its: _cost(its.cost_of_machine)),
        row("cost a day: storage", lambda its: _cost(its.cost_of_storage)),
        row("cost a machine-year: runs and storage", lambda its: _machine_year(its, its.cost_of_runs)),
        row("cost a machine-year: machine and storage", lambda its: _machine_year(its, its.cost_of_machine)),
    ]
    return _table(rows)


def _machine_year(its: Needs, compute: float) -> str:
    return _cost((compute + its.cost_of_storage) * 365.25 / its.plan.machines)


def _limits(model: Model, plan: Plan) -> str:
    """By cores, the largest fleet that one machine bears; memory as given, for more cores in proportion."""
    sizes = [dataclasses.replace(plan, cores=plan.cores * n, memory_gib=plan.memory_gib * n) for n in (1, 4, 16)]
    checks: dict[str, Callable[[Needs], bool]] = {
        f"a run takes up to {plan.window_hours:g} h": lambda its: its.new_day <= plan.window_hours * 3600,
        "a run that trains does": lambda its: its.new_day + its.training <= plan.window_hours * 3600,
        f"a backfill of a year takes up to {plan.backfill_hours:g} h": lambda its: its.backfill <= plan.backfill_hours * 3600,
        MEMORY: lambda its: its.memory_of_training <= its.plan.memory_gib * GIB,
        "a training's rows fit spark.driver.maxResultSize": lambda its: its.training_result_bytes <= MAX_RESULT_BYTES,
    }

    def largest(size: Plan, holds: Callable[[Needs], bool]) -> str:
        def fits(machines: int) -> bool:
            return holds(needs(model, dataclasses.replace(size, machines=machines)))

        return _rounded(largest_that(fits, FARTHEST * model.largest), model.largest)

    if not model.memory_grows:
        del checks[MEMORY]
    head = ["largest fleet for which", *(f"{size.cores} cores, {size.memory_gib:g} GiB" for size in sizes)]
    return _table([head, *([what, *(largest(size, holds) for size in sizes)] for what, holds in checks.items())])


def _turns(model: Model, plan: Plan) -> str:
    """What one change at a time is worth."""
    other = 6 if plan.cadence_hours != 6 else 12
    warm = {"runs_per_day": 24, "idle_minutes": 90}
    changes: dict[str, dict[str, Any]] = {
        "as planned": {},
        f"`PDM_CADENCE_HOURS={other}`": {"cadence_hours": other},
        "`PDM_CADENCE_HOURS=24`": {"cadence_hours": 24},
        "a run each hour": {"runs_per_day": 24},
        "a run each hour, `PDM_SPARK_IDLE_MINUTES=90`": warm,
        "the same, `PDM_KEEP_DAYS=8`": {**warm, "keep_days": 8},
        "three days in a run: files come late": {"days_per_run": 3},
        "`PDM_RETRAIN_EVERY_DAYS=7`": {"retrain_every_days": 7},
        "the monthly backtest on, four model types": {"model_types": 4},
        "files landed as .csv.gz": {"compressed": True},
        "three years kept": {"days_kept": 3 * YEAR},
        "four times the cores": {"cores": plan.cores * 4},
    }
    head = [f"{plan.machines:,} machines, one change at a time", "a run", "core-seconds a day", "written a day", "kept"]
    rows = [[*head, "cost a day, runs and storage"]]
    for what, change in changes.items():
        its = needs(model, dataclasses.replace(plan, **change))
        row = [what, _time(its.new_day), f"{sum(its.core_seconds.values()):,.0f}", _size(its.written_a_day)]
        rows.append([*row, _size(sum(its.kept.values())), _cost(its.cost_of_runs + its.cost_of_storage)])
    return _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join([lines[0], "| " + " | ".join("---" for _ in rows[0]) + " |", *lines[1:]])


def _time(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 3 * 3600 else f"{seconds / 3600:,.1f} h"


def _size(size: float) -> str:
    for unit, name in ((MIB, "MiB"), (GIB, "GiB")):
        if size < 1024 * unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size / GIB / 1024:,.1f} TiB"


def _size_if_known(size: float | None) -> str:
    return "not known" if size is None else _size(size)


def _times(factor: float) -> str:
    return f"{factor:,.0f}" if factor >= 10 else f"{factor:.2g}"


def _rounded(machines: int, largest: int) -> str:
    """Two digits, and how far that is from what was measured: more would say that a model knows more."""
    if machines >= FARTHEST * largest:
        return f"{machines:,} and more"
    step = 10 ** max(0, len(str(machines)) - 2)
    machines = machines // step * step
    return f"{machines:,} (x {machines / largest:,.0f})" if machines > largest else f"{machines:,}"


def _cost(cost: float) -> str:
    return f"{cost:,.2f}" if cost >= 1 else f"{cost:.2g}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = {field.name: field.default for field in dataclasses.fields(Plan)}

    def option(name: str, kind: Callable[[str], object], meaning: str) -> None:
        usual = default[name]
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=usual, help=f"{meaning} ({usual:g})")

    whole, positive = _number(int), _number(float)
    parser.add_argument("--machines", type=whole, nargs="+", default=FLEETS, help="fleets to plan for (1000 10000 100000)")
    parser.add_argument("--cores", type=whole, help="cores of the machine (as measured)")
    parser.add_argument("--memory-gib", type=positive, help="its memory (as measured)")
    parser.add_argument(
        "--cadence-hours", type=int, choices=(1, 3, 6, 12, 24), default=DEFAULTS.cadence_hours, help="PDM_CADENCE_HOURS (12)"
    )
    option("readings_per_hour", positive, "readings of a machine")
    option("days_kept", whole, "days of history on disk; the platform deletes none by itself")
    option("keep_days", whole, "PDM_KEEP_DAYS: how long replaced files stay")
    option("runs_per_day", whole, "runs of the running day")
    option("days_per_run", whole, "days in each of them: more where files come late")
    option("idle_minutes", positive, "PDM_SPARK_IDLE_MINUTES")
    option("retrain_every_days", whole, "PDM_RETRAIN_EVERY_DAYS")
    parser.add_argument(
        "--model-types", type=int, choices=range(5), default=0, help="types that the monthly backtest trains; 0: it is off (0)"
    )
    option("window_hours", positive, "how long a run may take")
    option("backfill_hours", positive, "how long a backfill of a year may take")
    option("price_core_hour", positive, "price of a core-hour; the default is a round example, no vendor's")
    option("price_gib_month", positive, "price of a GiB-month; likewise")
    parser.add_argument("--compressed", action="store_true", help="files land as .csv.gz")
    parser.add_argument("--measured", type=Path, default=FOLDER, help="folder with results.md and bytes.md (benchmarks/)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into this page, between its two marks")
    return parser


def _number(kind: type[int] | type[float]) -> Callable[[str], int | float]:
    def number(text: str) -> int | float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text}: take a number above 0")
        return value

    return number


def put_into(page: str, tables: str) -> str:
    """A page with the tables between its marks.

    Raises:
        PlanError: if it has no marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise PlanError(f"the page has no place for the tables: put the lines {BEGIN} and {END} where they belong")
    return f"{before}{BEGIN}\n\n{tables}\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the plan, or write it into a page; 1 if it can't be made."""
    given = vars(_parser().parse_args(arguments))
    machines, folder, page = given.pop("machines"), given.pop("measured"), given.pop("write")
    try:
        model = measured(folder)
        given["cores"], given["memory_gib"] = given["cores"] or model.cores, given["memory_gib"] or float(model.memory_gib)
        tables = told(model, [Plan(machines=each, **given) for each in machines])
        if page is None:
            print(tables, end="")
        else:
            page.write_text(put_into(page.read_text(), tables))
    except (PlanError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
