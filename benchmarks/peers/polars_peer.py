"""The load and the features in Polars, lazily: one query a table, in memory or streaming."""

from functools import partial

import polars as pl

from peers.common import CHANNEL_NAMES, CHANNELS, COMPONENTS, ERROR_CODES, EVENTS, HOURS, Stage, Work

BY_DAY = {"partition_by": ["date"]}


def load(work: Work, engine: str) -> None:
    """CSV to Delta tables by day: typed, checked against the fleet and the valid ranges, the last of equal keys kept."""
    fleet = pl.scan_csv(work.files / "machines.csv").select(
        pl.col("machineID").alias("machine_id"),
        pl.col("model").alias("machine_model"),
        pl.col("age").cast(pl.Int32).alias("age_years"),
    )
    days = pl.LazyFrame({"date": work.days})
    _write(days.join(fleet, how="cross"), work, "raw/machines", engine)
    telemetry = _times(work, "telemetry.csv", "observed_at").filter(
        *(pl.col(c.name).is_between(c.lowest, c.highest) for c in CHANNELS)
    )
    _events(
        telemetry.select("machine_id", "observed_at", *CHANNEL_NAMES),
        fleet,
        "observed_at",
        ["machine_id", "observed_at"],
        work,
        "raw/telemetry",
        engine,
    )
    for file, (table, time, theirs, ours, known) in EVENTS.items():
        rows = (
            _times(work, file, time).rename({theirs: ours}).filter(pl.col(ours).is_in(known)).select("machine_id", time, ours)
        )
        _events(rows, fleet, time, ["machine_id", time, ours], work, table, engine)


def _times(work: Work, file: str, time: str) -> pl.LazyFrame:
    found = pl.scan_csv(work.files / file, schema_overrides={"datetime": pl.String})
    at = pl.col("datetime").str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", time_zone="UTC")
    return found.with_columns(at.alias(time)).rename({"machineID": "machine_id"}).drop_nulls()


def _events(rows: pl.LazyFrame, fleet: pl.LazyFrame, time: str, key: list[str], work: Work, table: str, engine: str) -> None:
    date = pl.max_horizontal(pl.col(time).dt.date(), pl.lit(work.first)).alias("date")
    known = rows.join(fleet, on="machine_id", how="semi").unique(key, keep="last", maintain_order=False)
    _write(known.with_columns(date), work, table, engine)


def _write(rows: pl.LazyFrame, work: Work, table: str, engine: str) -> None:
    target = work.lake / table
    if engine == "streaming":
        rows.sink_delta(target, mode="overwrite", delta_write_options=BY_DAY, engine="streaming")
    else:
        rows.collect(engine=engine).write_delta(target, mode="overwrite", delta_write_options=BY_DAY)


def features(work: Work, engine: str) -> None:
    """Observations at 06:00 and 18:00, windows (t - h, t]."""
    read = lambda table: pl.scan_delta(str(work.lake / table))  # noqa: E731
    key = ["machine_id", "observed_at"]
    telemetry = read("raw/telemetry").select(*key, *CHANNEL_NAMES)
    hours = pl.LazyFrame({"hour": [6, 18]}, schema={"hour": pl.Int64})
    grid = (
        read("raw/machines")
        .join(hours, how="cross")
        .with_columns((pl.col("date").cast(pl.Datetime("us", "UTC")) + pl.duration(hours="hour")).alias("observed_at"))
        .drop("hour")
        # observed are the times whose last hour has landed of any machine
        .join(telemetry.select("observed_at").unique(), on="observed_at", how="semi")
        .sort(key)
    )
    sums = telemetry.group_by("machine_id", _half_day_end("observed_at")).agg(
        pl.len().alias("readings"),
        *(pl.col(name).sum().alias(f"{name}_sum") for name in CHANNEL_NAMES),
        *((pl.col(name) ** 2).sum().alias(f"{name}_squares") for name in CHANNEL_NAMES),
    )
    errors = (
        read("raw/errors")
        .group_by("machine_id", _half_day_end("occurred_at"))
        .agg(*((pl.col("error_code") == code).sum().cast(pl.Int32).alias(code) for code in ERROR_CODES))
    )
    found = _with_half_days(_with_half_days(grid, sums, max(HOURS) // 12), errors, 2)
    since = _over("readings", max(HOURS) // 12).cast(pl.Int32).alias("readings_36h")
    found = found.with_columns(
        *(it for hours in HOURS for name in CHANNEL_NAMES for it in _statistics(name, hours)),
        *(_over(code, 2).alias(f"{code}_count_24h") for code in ERROR_CODES),
        since,
    ).select(*grid.collect_schema().names(), pl.selectors.matches("_(mean|std)_|_count_24h$|^readings_36h$"))
    maintenance = read("raw/maintenance")
    found = found.sort("observed_at")
    for component in COMPONENTS:
        replaced = (
            maintenance.filter(pl.col("component") == component).select("machine_id", "performed_at").sort("performed_at")
        )
        found = found.join_asof(
            replaced.rename({"performed_at": component}),
            left_on="observed_at",
            right_on=component,
            by="machine_id",
            coalesce=False,
        )
    ages = {name: (pl.col("observed_at") - pl.col(name)).dt.total_microseconds() / 86_400e6 for name in COMPONENTS}
    result = found.with_columns(
        *(age.alias(f"{name}_days_since_replacement") for name, age in ages.items()),
        *(pl.col(name).is_null().alias(f"{name}_never_replaced") for name in COMPONENTS),
    ).drop(*COMPONENTS)
    _write(result, work, "features/observations", engine)


def _half_day_end(time: str) -> pl.Expr:
    """End of the half day (end - 12 h, end] that a time falls into; half days end at 06:00 and 18:00."""
    before = pl.col(time) - pl.duration(hours=6, microseconds=1)
    return (before.dt.truncate("12h") + pl.duration(hours=18)).alias("observed_at")


def _with_half_days(grid: pl.LazyFrame, half_days: pl.LazyFrame, count: int) -> pl.LazyFrame:
    """The columns of the half day that ends with an observation, and of those before it, as name_0, name_1, ..."""
    names = [name for name in half_days.collect_schema().names() if name not in ("machine_id", "observed_at")]
    for step in range(count):
        later = half_days.with_columns(pl.col("observed_at") + pl.duration(hours=12 * step))
        renamed = later.rename({name: f"{name}_{step}" for name in names})
        grid = grid.join(renamed, on=["machine_id", "observed_at"], how="left")
    return grid


def _over(name: str, count: int) -> pl.Expr:
    return pl.sum_horizontal(*(pl.col(f"{name}_{step}").fill_null(0) for step in range(count)))


def _statistics(name: str, hours: int) -> tuple[pl.Expr, pl.Expr]:
    """Mean and sample standard deviation of a channel over some hours, from the sums of half days."""
    count, total, squares = (_over(each, hours // 12) for each in ("readings", f"{name}_sum", f"{name}_squares"))
    spread = (squares - total**2 / count).clip(lower_bound=0) / (count - 1)
    return (
        pl.when(count > 0).then(total / count).alias(f"{name}_mean_{hours}h"),
        pl.when(count > 1).then(spread.sqrt()).alias(f"{name}_std_{hours}h"),
    )


def stages(engine: str) -> dict[str, Stage]:
    """The work in one of Polars's engines: in-memory or streaming."""
    return {"load": partial(load, engine=engine), "features": partial(features, engine=engine)}
