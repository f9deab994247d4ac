"""Features, labels, models and scores: columns and names."""

from pyspark.sql import types as T

from pdm_assets.schemas.raw import CHANNELS, COMPONENTS, ERROR_CODES, MACHINE_ID, one_of
from pdm_assets.schemas.table import Table, column
from pdm_assets.settings import ERROR_LOOKBACK_HOURS, LOOKBACK_HOURS

OBSERVATION_KEY = ("machine_id", "observed_at")
OBSERVED_AT = column("observed_at", T.TimestampType(), "time of the observation, UTC: nothing later is seen")

CHANNEL_FEATURES = tuple(
    column(
        f"{channel.name}_{statistic}_{hours}h",
        T.DoubleType(),
        f"{word} of {channel.name} over the last {hours} h, {channel.unit}; null {unknown}",
        nullable=True,
    )
    for channel in CHANNELS
    for statistic, word, unknown in (
        ("mean", "mean", "without a reading"),
        ("std", "sample standard deviation", "with fewer than two readings"),
    )
    for hours in LOOKBACK_HOURS
)
ERROR_FEATURES = tuple(
    column(
        f"{code}_count_{ERROR_LOOKBACK_HOURS}h",
        T.IntegerType(),
        f"{code} in the last {ERROR_LOOKBACK_HOURS} h",
    )
    for code in ERROR_CODES
)
REPLACEMENT_FEATURES = tuple(
    field
    for component in COMPONENTS
    for field in (
        column(
            f"{component}_days_since_replacement",
            T.DoubleType(),
            f"days since the latest replacement of {component} at or before the observation; null if there was none",
            nullable=True,
        ),
        column(f"{component}_never_replaced", T.BooleanType(), f"no replacement of {component} is on record"),
    )
)
MACHINE_FEATURES = (
    column("age_years", T.IntegerType(), "years in service of the machine"),
    column("machine_model", T.StringType(), "type of the machine"),
)
READINGS_COUNT = f"readings_{max(LOOKBACK_HOURS)}h"
OBSERVATIONS = Table(
    key="features/observations",
    columns=(
        MACHINE_ID,
        OBSERVED_AT,
        *CHANNEL_FEATURES,
        *ERROR_FEATURES,
        *REPLACEMENT_FEATURES,
        *MACHINE_FEATURES,
        column(
            READINGS_COUNT,
            T.IntegerType(),
            f"readings in the last {max(LOOKBACK_HOURS)} h: how complete the look-back is",
        ),
    ),
    unique=OBSERVATION_KEY,
)
# What a model may see: READINGS_COUNT only decides whether an observation is scored.
NUMERIC_FEATURES = tuple(f.name for f in (*CHANNEL_FEATURES, *ERROR_FEATURES, *REPLACEMENT_FEATURES, MACHINE_FEATURES[0]))
CATEGORICAL_FEATURES = ("machine_model",)

COMPONENT = column("component", T.StringType(), "component of the machine")
COMPONENT_FAILURES = Table(
    key="labels/component_failures",
    columns=(
        MACHINE_ID,
        OBSERVED_AT,
        COMPONENT,
        column(
            "fails_within_horizon",
            T.BooleanType(),
            "the component fails in (observed_at, observed_at + horizon]",
        ),
        column("horizon_hours", T.IntegerType(), "length of the horizon"),
    ),
    unique=(*OBSERVATION_KEY, "component"),
    constraints={"component_is_known": one_of("component", COMPONENTS)},
    counted=("fails_within_horizon",),
)
TOO_LITTLE_HISTORY = "too little history"
MODEL_STATUSES = ("trained", "carried forward", "refused", TOO_LITTLE_HISTORY)
FAILURE_MODEL = Table(
    key="models/failure_model",
    columns=(
        column(
            "model_version",
            T.StringType(),
            "version in force for the day; null if there is none",
            nullable=True,
        ),
        column("cutoff_at", T.TimestampType(), "nothing after it was known to the model", nullable=True),
        column("status", T.StringType(), ", ".join(MODEL_STATUSES)),
        column("detail", T.StringType(), "why, in words"),
    ),
    unique=(),
    constraints={"status_is_known": one_of("status", MODEL_STATUSES)},
)
REGISTRY = Table(
    key="models/registry",
    columns=(
        column("model_version", T.StringType(), "name of the version"),
        column("model_type", T.StringType(), "classifier"),
        column("horizon_hours", T.IntegerType(), "horizon that it foretells"),
        column("cutoff_at", T.TimestampType(), "nothing after it was known to the model"),
        column("trained_at", T.TimestampType(), "when training ended"),
        column("card", T.StringType(), "model card, JSON"),
    ),
    unique=("model_version",),
    daily=False,
)
DECISIONS = Table(
    key="models/decisions",
    columns=(
        column("model_version", T.StringType(), "version that was decided on"),
        column("decision", T.StringType(), "promoted or refused"),
        column("in_force_from", T.DateType(), "first day that a promoted version is in force, until the next promotion"),
        column("decided_at", T.TimestampType(), "when it was decided"),
        column("decided_by", T.StringType(), "the gate in which run, or which user"),
        column("reason", T.StringType(), "why, in words"),
        column("conditions", T.StringType(), "what the gate found, JSON"),
    ),
    unique=(),
    constraints={"decision_is_known": one_of("decision", ("promoted", "refused"))},
    daily=False,
)
# What models/backtest and monitoring/realised_performance measure alike.
CAUGHT = (
    column("caught", T.LongType(), "of these, warned of in time"),
    column("event_recall", T.DoubleType(), "caught / failures", nullable=True),
    column("lead_median_hours", T.DoubleType(), "from first alert to failure, of those caught", nullable=True),
)
EPISODES = (
    column("true_episodes", T.LongType(), "alarm episodes that a failure followed"),
    column("false_episodes", T.LongType(), "alarm episodes that neither a failure nor a replacement followed"),
)
ALARMS = (
    column("alarm_precision", T.DoubleType(), "true / (true + false) episodes", nullable=True),
    column("false_alarms_per_machine_month", T.DoubleType(), "false episodes by 30.44 machine-days", nullable=True),
)
COSTS = (
    column("cost", T.DoubleType(), "of missed failures, false visits and planned repairs, by the PDM_COST settings"),
    column("never_cost", T.DoubleType(), "of waiting for each failure"),
)
AVERAGE_PRECISION = column(
    "average_precision", T.DoubleType(), "area under the precision-recall curve of observations", nullable=True
)
CALIBRATION = (
    column("brier_skill", T.DoubleType(), "1 - brier / brier of always saying the failure rate", nullable=True),
    column("calibration_error", T.DoubleType(), "mean distance of probability and failure rate, ten bins", nullable=True),
)
BACKTEST = Table(
    key="models/backtest",
    columns=(
        column("model_type", T.StringType(), "classifier"),
        column("component", T.StringType(), "component, or pooled"),
        column(
            "terms",
            T.StringType(),
            "horizon, least lead, cadence and costs: folds of other terms do not compare",
            nullable=True,
        ),
        column("train_days", T.IntegerType(), "length of the training window; less than PDM_TRAIN_DAYS where history is short"),
        column("observations", T.LongType(), "observations of the test window"),
        column("failures", T.LongType(), "failures of the test window"),
        *CAUGHT,
        column("lead_24h_share", T.DoubleType(), "of those caught, share with 24 h or more", nullable=True),
        *EPISODES,
        *ALARMS,
        *COSTS,
        column("calendar_cost", T.DoubleType(), "of the cheapest replacement interval, chosen with hindsight"),
        column("best_rule", T.StringType(), "the rule without learning that would have cost least"),
        column("best_rule_cost", T.DoubleType(), "its cost"),
        AVERAGE_PRECISION,
        *CALIBRATION,
        column("fit_seconds", T.DoubleType(), "how long the fit took"),
    ),
    unique=("model_type", "component"),
)
COMPONENT_RISK = Table(
    key="scores/component_risk",
    columns=(
        MACHINE_ID,
        OBSERVED_AT,
        COMPONENT,
        column("probability", T.DoubleType(), "probability that the component fails within the horizon"),
        column("threshold", T.DoubleType(), "probability from which on it is an alert"),
        column("is_alert", T.BooleanType(), "probability >= threshold"),
        column("model_version", T.StringType(), "version that scored"),
        column("scored_at", T.TimestampType(), "when it was scored, UTC"),
        column("features_version", T.LongType(), "Delta version of features/observations that was read"),
    ),
    unique=(*OBSERVATION_KEY, "component"),
    counted=("is_alert",),
    constraints={
        "probability_is_one": "probability BETWEEN 0 AND 1",
        "component_is_known": one_of("component", COMPONENTS),
    },
)
WORKLIST = Table(
    key="worklist/maintenance",
    columns=(
        column("rank", T.IntegerType(), "1 is what a visit is expected to save most at"),
        column("is_within_capacity", T.BooleanType(), "rank up to PDM_CREW_VISITS_A_DAY"),
        column("episode_id", T.StringType(), "machine, component and first alert: the same from day to day"),
        MACHINE_ID,
        COMPONENT,
        column("first_alerted_at", T.TimestampType(), "first alert of the episode"),
        column("last_alerted_at", T.TimestampType(), "its latest alert"),
        column("observed_at", T.TimestampType(), "latest scored observation of the machine"),
        column("probability", T.DoubleType(), "probability of a failure within the horizon of that observation"),
        column("threshold", T.DoubleType(), "probability from which on it is an alert"),
        column(
            "expected_hours_left", T.DoubleType(), "mean of earlier episodes that went on as long; null if none", nullable=True
        ),
        column(
            "days_since_replacement", T.DoubleType(), "age of the component; null if no replacement is on record", nullable=True
        ),
        column("expected_saving", T.DoubleType(), "of a visit now, in the unit of the PDM_COST settings"),
        column("reasons", T.StringType(), "what carries the probability, the most telling first"),
        column("model_version", T.StringType(), "version that scored the observation"),
    ),
    unique=("machine_id", "component"),
    counted=("is_within_capacity",),
    constraints={"component_is_known": one_of("component", COMPONENTS)},
)
REALISED_PERFORMANCE = Table(
    key="monitoring/realised_performance",
    columns=(
        column("component", T.StringType(), "component, or pooled"),
        column(
            "window_days", T.IntegerType(), "1 or 30: so many days of failures up to this one, of alarms up to a horizon before"
        ),
        column("observations", T.LongType(), "scored observations of the window whose outcome is known"),
        column("failures", T.LongType(), "failures of the window"),
        *CAUGHT,
        *EPISODES,
        column(
            "replaced_episodes",
            T.LongType(),
            "alarm episodes whose component was replaced before it failed: neither true nor false; null before format 3",
            nullable=True,
        ),
        *ALARMS,
        column("alarmed_machines_per_day", T.DoubleType(), "machines with an alert, mean of the days"),
        *COSTS,
        AVERAGE_PRECISION,
        column("brier", T.DoubleType(), "mean (p - y)^2", nullable=True),
        *CALIBRATION,
        column("alerts_said", T.DoubleType(), "mean probability of the alerts; null if too few to tell", nullable=True),
        column("alerts_came_true", T.DoubleType(), "share of the alerts that failed within the horizon", nullable=True),
        column("worse", T.StringType(), "what fell short of the model's test window; null if nothing did", nullable=True),
        column("is_worse", T.BooleanType(), "whether anything did"),
        column("model_version", T.StringType(), "version in force for the day, which the window is compared with"),
    ),
    unique=("component", "window_days"),
    counted=("is_worse",),
)
FEATURE_DRIFT = Table(
    key="monitoring/feature_drift",
    columns=(
        column("feature", T.StringType(), "a feature, or a component: then its probability"),
        column("observations", T.LongType(), "observations of the last 7 days"),
        column(
            "psi", T.DoubleType(), "population stability index against the training window (a probability: test)", nullable=True
        ),
        column(
            "psi_limit", T.DoubleType(), "above it the feature has moved: 0.25 and twice what chance gives a fleet of this size"
        ),
        column("missing", T.DoubleType(), "share of observations without a value"),
        column("usually_missing", T.DoubleType(), "the same in the training window"),
        column("is_drifted", T.BooleanType(), "psi above its limit, or a tenth more missing than usual"),
        column("model_version", T.StringType(), "version in force for the day, which is compared with"),
    ),
    unique=("feature",),
    counted=("is_drifted",),
)
