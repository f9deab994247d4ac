"""Every setting of the platform, with its meaning, default and environment variable.

`python -m pdm_assets.settings` prints the table that docs/settings.md shows. Nothing here reads the environment by itself:
`partitions.py`, the command line and the tests call `Settings.from_environ` with a mapping.
"""

import dataclasses
import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

ModelType = Literal["random_forest", "decision_tree", "gradient_boosted_trees", "logistic_regression"]
Engine = Literal["duckdb", "spark"]

LOOKBACK_HOURS = (12, 24, 36)  # rolling means and standard deviations of each channel
ERROR_LOOKBACK_HOURS = 24  # in the public data the tell-tale error fires 24 h before a failure
LEAST_MEMORY_MB = 256
FIRST_OBSERVATION_HOUR = 6  # observations stand at 06:00 and then every cadence_hours

# What fails is in the last few per cent of a channel: Spark's 32 bins would have all of that in one (benchmarks/peers.md).
BINS = {"maxBins": 128}
# `python benchmarks/search.py` found no others that are better by more than noise (benchmarks/search.md).
HYPERPARAMETERS: Mapping[ModelType, Mapping[str, int | float | str | bool]] = {
    # of 46 inputs only a few carry signal: a third at each split finds them sooner than the usual root
    "random_forest": {"numTrees": 40, "maxDepth": 8, "minInstancesPerNode": 5, "featureSubsetStrategy": "onethird", **BINS},
    "decision_tree": {"maxDepth": 6, "minInstancesPerNode": 20, **BINS},
    "gradient_boosted_trees": {"maxIter": 20, "maxDepth": 4, "stepSize": 0.2, "minInstancesPerNode": 20, **BINS},
    "logistic_regression": {"maxIter": 100, "regParam": 0.0005, "standardization": False},
}


STORES = ("s3a", "abfss", "gs")  # schemes of object stores that Spark and deltalake both know
# Tried, each in a data root: Delta's readers miss the files of a table, Spark ML misses models, or what is written goes astray.
ILL_IN_PATHS = re.compile(r"[%\\*?\[\]{},\x00-\x1f\x7f]")


# Variables of earlier releases, and what to do in place of each.
MOVED: Mapping[str, str] = {
    "PDM_SPARK_MODE": "the default, PDM_ENGINE=duckdb, needs no Spark; for a cluster set PDM_ENGINE=spark and "
    "PDM_SPARK_REMOTE, for a job of Databricks or a local session PDM_ENGINE=spark alone",
    "PDM_SPARK_MEMORY_MB": "set PDM_MEMORY_MB",
    "PDM_SPARK_CORES": "unset it",
    "PDM_SPARK_IDLE_MINUTES": "unset it, for no engine stands by any more",
}


class SettingError(ValueError):
    """A PDM_ variable that can't be used; the text names it, its value and what would be right."""


def _setting(default: Any, doc: str, *, is_secret: bool = False) -> Any:
    return dataclasses.field(default=default, metadata={"doc": doc}, repr=not is_secret)


@dataclass(frozen=True)
class Settings:
    """The settings of one process. A field `x_y` is the environment variable `PDM_X_Y`."""

    data: Path = _setting(
        Path("data"),
        "data root: landing/, lake/, models/ and what the engine spills live in it; a relative path begins where you are",
    )
    landing: str | None = _setting(
        None,
        "object store that files land in, such as s3://bucket/landing with a folder a raw table: they are copied to landing/ "
        "of the data root as they come; none: they land there themselves",
    )
    lake: str | None = _setting(
        None, "object store that the tables are on, such as s3a://bucket/lake; none: lake/ of the data root"
    )
    first_day: dt.date = _setting(dt.date(2014, 1, 1), "first day partition (UTC)")
    last_day: dt.date | None = _setting(
        None,
        "last day partition, included, of a history that has ended; without it, or until it has come, it is the running day",
    )
    cadence_hours: int = _setting(
        12, "hours between two observations of a machine: 1, 3, 6, 12 or 24, from 06:00 on; set it before the first load"
    )
    horizon_hours: int = _setting(
        48,
        "how far ahead a failure is foretold: (observed_at, observed_at + horizon]; set it before the first load "
        "(docs/operations.md)",
    )
    model_type: ModelType = _setting("random_forest", "classifier of each component")
    retrain_every_days: int = _setting(28, "a model older than this is replaced on the next day that is materialized")
    retrain_cooldown_days: int = _setting(7, "days of data after a training before drift or decline may ask for the next")
    train_days: int = _setting(270, "length of the training window")
    calibration_days: int = _setting(30, "length of the window on which probabilities are calibrated and thresholds chosen")
    test_days: int = _setting(30, "length of the window on which a model is judged")
    cost_missed_failure: float = _setting(
        10_000.0, "what a failure costs that no alert warned of in time; the three costs are in one unit, whichever you like"
    )
    cost_false_visit: float = _setting(
        1_000.0, "what a visit costs that an alert asked for and no failure followed; by default half a planned repair"
    )
    cost_planned_repair: float = _setting(2_000.0, "what a repair costs that could be planned, because an alert came in time")
    least_lead_hours: int = _setting(6, "an alert is in time if it comes at least so many hours before the failure")
    crew_visits_a_day: int = _setting(10, "components that the crew can see to in a day")
    seed: int = _setting(20150101, "seed of training")
    engine: Engine = _setting(
        "duckdb",
        "what runs the queries. duckdb: inside each run, without a JVM; spark: the Spark at spark_remote, or without it the "
        "session of the Databricks job, or a local one",
    )
    spark_remote: str | None = _setting(
        None, "address of a Spark Connect server for the engine spark, such as sc://host:15002/;token=...", is_secret=True
    )
    memory_mb: int = _setting(
        0,
        "memory in MiB that the queries of a run may take, and the JVM that fits a model; 0 takes a quarter of the machine or "
        "container, 1 to 4 GiB",
    )
    keep_days: int = _setting(
        30, "days for which every version of a table can be read and restored; longer where a registered model names one"
    )
    keep_model_data_days: int | None = _setting(
        None, "data versions of models trained longer ago are let go; none: those of every registered model are kept"
    )
    catalog: str | None = _setting(None, "with schema: write named tables catalog.schema.group_name, not paths under lake/")
    schema: str | None = _setting(None, "see catalog")
    databricks_compute: Path | None = _setting(
        None,
        "with databricks_volume: jobs of Databricks make the heavy assets, on what this JSON file says; none: Spark here does",
    )
    databricks_volume: str | None = _setting(None, "volume for what these jobs are told and say: /Volumes/catalog/schema/name")
    dagster_db: str | None = _setting(
        None,
        "PostgreSQL that keeps Dagster's runs, events and schedules, such as postgresql://user:password@host:5432/name; none: "
        "files in the data root",
        is_secret=True,
    )
    mlflow_uri: str | None = _setting(
        None, "an MLflow server that models are mirrored to, such as http://host:5000; none: no mirror"
    )
    mlflow_name: str = _setting(
        "pdm-failure-model", "experiment and registered model of the mirror; another for each plant that shares a server"
    )

    def __post_init__(self) -> None:
        """Refuse values no part of the platform could work with."""
        self._check_lengths()
        self._check_stores()
        if min(self.cost_false_visit, self.cost_planned_repair) <= 0 or self.cost_missed_failure <= self.cost_planned_repair:
            raise SettingError(
                f"PDM_COST_MISSED_FAILURE={self.cost_missed_failure} must be more than PDM_COST_PLANNED_REPAIR="
                f"{self.cost_planned_repair}, and that and PDM_COST_FALSE_VISIT={self.cost_false_visit} more than 0: "
                "else no warning could ever save anything"
            )
        if not 0 <= self.least_lead_hours < self.horizon_hours:
            raise SettingError(
                f"PDM_LEAST_LEAD_HOURS={self.least_lead_hours}: take less than PDM_HORIZON_HOURS={self.horizon_hours}"
            )
        if self.last_day is not None and self.last_day < self.first_day:
            raise SettingError(f"PDM_LAST_DAY={self.last_day} is before PDM_FIRST_DAY={self.first_day}")
        self._check_engine()
        if self.dagster_db is not None and not re.fullmatch(r"postgresql://[^/\s]+/[^/?\s]+(\?\S+)?", self.dagster_db):
            # It may hold a password: it is not shown.
            raise SettingError(
                "PDM_DAGSTER_DB: take postgresql://user:password@host:port/name?sslmode=..., signs in the password as %2F"
            )
        if (self.catalog is None) != (self.schema is None):
            raise SettingError("PDM_CATALOG and PDM_SCHEMA go together: set both or none")
        if (self.databricks_compute is None) != (self.databricks_volume is None):
            raise SettingError("PDM_DATABRICKS_COMPUTE and PDM_DATABRICKS_VOLUME go together: set both or none")
        if self.databricks_volume is not None and not re.fullmatch(r"(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+", self.databricks_volume):
            raise SettingError(f"PDM_DATABRICKS_VOLUME={self.databricks_volume!r}: take a path such as /Volumes/main/pdm/jobs")
        if self.mlflow_uri is not None and not _is_plain_address(self.mlflow_uri):
            # It may hold a password: it is not shown.
            raise SettingError(
                "PDM_MLFLOW_URI: take http(s)://host:port without user, password or query. MLflow itself reads "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )
        if bad := sorted(set(ILL_IN_PATHS.findall(str(self.data)))):
            raise SettingError(
                f"PDM_DATA={str(self.data)!r}: take a path without {' '.join(map(repr, bad))}, which Spark or Delta would read "
                "as a pattern, a list or an escape"
            )
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", self.mlflow_name):
            raise SettingError(f"PDM_MLFLOW_NAME={self.mlflow_name!r}: take letters, digits, dots, _ and -")

    def _check_engine(self) -> None:
        if self.engine != "spark" and self.spark_remote is not None:
            raise SettingError("PDM_SPARK_REMOTE is an address for the engine spark: set PDM_ENGINE=spark, or unset it")
        if self.engine != "spark" and self.catalog is not None:
            raise SettingError("PDM_CATALOG is a catalog of Databricks, which Spark alone knows: set PDM_ENGINE=spark")
        if self.spark_remote is not None and not _is_spark_address(self.spark_remote):
            # It may hold a token, and Spark's own words on a wrong one do: it is not shown.
            raise SettingError("PDM_SPARK_REMOTE: take sc://host:port/;name=value;..., a = or ; in a value as %3D or %3B")
        if self.memory_mb and self.memory_mb < LEAST_MEMORY_MB:
            raise SettingError(f"PDM_MEMORY_MB={self.memory_mb}: take {LEAST_MEMORY_MB} or more, or 0 for the default")

    def _check_stores(self) -> None:
        if self.lake is not None and not re.fullmatch(rf"({'|'.join(STORES)})://[\w.@-]+(/[\w.=-]+)*", self.lake):
            raise SettingError(f"PDM_LAKE={self.lake!r}: take an address such as s3a://bucket/lake ({', '.join(STORES)})")
        if self.lake is not None and self.catalog is not None:
            raise SettingError("PDM_LAKE and PDM_CATALOG: set one of them, for a catalog knows where its tables are")
        if self.landing is not None and not re.fullmatch(r"(s3a?|abfss?|gs)://[\w.@-]+(/[^?#\s]*)?", self.landing):
            # A key before the bucket's name would be shown in the UI and in errors: it is not shown here either.
            raise SettingError("PDM_LANDING: take an address such as s3://bucket/landing (s3, abfs, gs), credentials not in it")

    def _check_lengths(self) -> None:
        if self.cadence_hours not in (1, 3, 6, 12, 24):
            raise SettingError(f"PDM_CADENCE_HOURS={self.cadence_hours}: take 1, 3, 6, 12 or 24")
        for name in (
            "horizon_hours",
            "retrain_every_days",
            "retrain_cooldown_days",
            "train_days",
            "calibration_days",
            "test_days",
        ):
            if getattr(self, name) < 1:
                raise SettingError(f"PDM_{name.upper()}={getattr(self, name)}: take a whole number from 1 on")
        # Upkeep is weekly: what is younger than a week may be named before it comes by again.
        for name in ("keep_days", "keep_model_data_days"):
            if (days := getattr(self, name)) is not None and days < 8:
                raise SettingError(f"PDM_{name.upper()}={days}: take a whole number from 8 on")
        for name in ("calibration_days", "test_days"):
            if getattr(self, name) <= self.horizon_days:
                raise SettingError(
                    f"PDM_{name.upper()}={getattr(self, name)}: take more than the {self.horizon_days} days of "
                    f"PDM_HORIZON_HOURS={self.horizon_hours}, else no failure of the window is judged"
                )

    @property
    def horizon(self) -> dt.timedelta:
        """The horizon as a length of time."""
        return dt.timedelta(hours=self.horizon_hours)

    @property
    def horizon_days(self) -> int:
        """Whole days after which an observation's outcome is surely known: ceil(horizon)."""
        return -(-self.horizon_hours // 24)

    @property
    def landing_root(self) -> Path:
        """Where files land: one folder a raw table."""
        return self.data / "landing"

    @property
    def lake_root(self) -> str:
        """The Delta tables: <group>/<name> below it; a folder or an address."""
        return self.lake or str((self.data / "lake").absolute())

    @property
    def store(self) -> str:
        """The scheme of the store that the tables are on."""
        return "file" if self.lake is None else self.lake.split("://")[0]

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Settings":
        """Read PDM_ variables. An unknown one is an error, for a misspelt setting is a silent default."""
        fields = {f"PDM_{field.name.upper()}": field for field in dataclasses.fields(cls)}
        given = {name: text for name, text in environ.items() if name.startswith("PDM_") and text != ""}
        if moved := sorted(set(given) & set(MOVED)):
            raise SettingError("; ".join(f"{name} is gone: {MOVED[name]}" for name in moved))
        unknown = sorted(set(given) - set(fields))
        if unknown:
            raise SettingError(f"no such setting: {', '.join(unknown)}. Settings: {', '.join(fields)}")
        return cls(**{fields[name].name: _parse(name, text, fields[name].type) for name, text in given.items()})

    def to_environ(self) -> dict[str, str]:
        """The variables that give these settings back, for a child process."""
        values = {f"PDM_{field.name.upper()}": getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: str(value) for name, value in values.items() if value is not None}


def _is_plain_address(text: str) -> bool:
    """Whether it is where a server is and nothing more: what it holds is printed in logs and links."""
    try:
        address = urlsplit(text)
        is_located = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:  # a port that is no number, half of an IPv6 address
        return False
    return is_located and not (set("@?#") & set(text))


def _is_spark_address(text: str) -> bool:
    """Whether Spark Connect can read it."""
    try:
        urlsplit(text).port  # noqa: B018 - asking is the check
    except ValueError:
        return False
    return re.fullmatch(r"sc://[^/;?#@\s]+(/(;[^=;?#\s]+=[^=;?#\s]+)*)?", text) is not None


def _parse(name: str, text: str, kind: Any) -> Any:
    choices = get_args(kind)
    try:
        if choices and all(isinstance(choice, str) for choice in choices):
            if text not in choices:
                raise ValueError(f"take one of {', '.join(choices)}")
            return text
        if kind in (dt.date, dt.date | None):
            return dt.date.fromisoformat(text)
        if kind in (Path, Path | None):
            return Path(text).expanduser()
        return {int: int, int | None: int, float: float}.get(kind, str)(text)
    except ValueError as error:
        raise SettingError(f"{name}={text!r}: {error}") from error


def table() -> str:
    """The settings as a Markdown table."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for field in dataclasses.fields(Settings):
        default = "none" if field.default is None else f"`{field.default}`"
        rows.append(f"| `PDM_{field.name.upper()}` | {default} | {field.metadata['doc']} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
