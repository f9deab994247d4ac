"""Train one model: from features and labels to a fitted pipeline, its card and what the plots need."""

import dataclasses
import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pdm_assets.models import metrics
from pdm_assets.models.calibration import CostCurve, Platt, cheapest_threshold, cost_curve, fair_threshold, fit_platt
from pdm_assets.models.card import ModelCard, WindowCounts
from pdm_assets.models.drift import reference_of
from pdm_assets.models.evaluation import POOLED, History, Outcomes, at_capacity, contender, pooled, report
from pdm_assets.models.events import Costs, Moments, Rules, are_decided
from pdm_assets.models.fitting import FitSpec, Fitter
from pdm_assets.models.pipeline import NULLABLE_FEATURES, Parameters
from pdm_assets.models.promotion import Condition, Contender, Verdict, decide
from pdm_assets.models.rules import RULE_FEATURES, SHIFT_HOURS, Healthy, deviation_of, mean_of, rule_alerts
from pdm_assets.models.served import SavedPipeline, numpy_columns
from pdm_assets.models.table import (
    LABELS,
    WEIGHT,
    any_failure,
    is_in,
    label_of,
    seldom_failing,
    thin_out,
    thinning,
    training_table,
    within,
    without_undecided,
)
from pdm_assets.models.windows import Window, WindowName, Windows, model_windows
from pdm_assets.schemas.features import CATEGORICAL_FEATURES, NUMERIC_FEATURES, OBSERVATION_KEY
from pdm_assets.schemas.raw import CHANNEL_NAMES, COMPONENTS
from pdm_assets.schemas.table import DATE
from pdm_assets.settings import HYPERPARAMETERS, ModelType, Settings

NEVER = 1.0  # a threshold that no calibrated probability reaches


class TrainingError(ValueError):
    """The windows can't make a model; the text says which window lacks what."""


class TrainedModel(NamedTuple):
    """A fitted pipeline with its card.

    Outcomes and cost curves are by window (calibration, test) and component; a component that no failure of was due in a window
    has no curve there.
    """

    pipeline: SavedPipeline
    card: ModelCard
    outcomes: Mapping[WindowName, Mapping[str, Outcomes]]
    curves: Mapping[WindowName, Mapping[str, CostCurve | None]]
    bench: "Bench"
    fit_seconds: float


class Bench(NamedTuple):
    """What any model is compared on with a trained one: observations that it did not learn from, and what happened then."""

    rows: pa.Table
    windows: Windows
    history: Mapping[str, History]
    signs: Mapping[str, metrics.Floats]
    rules: Rules
    costs: Costs


def train(
    observations: DataFrame,
    labels: DataFrame,
    failures: DataFrame,
    maintenance: DataFrame,
    *,
    cutoff: dt.date,
    settings: Settings,
    model_type: ModelType,
    data_versions: Mapping[str, int],
    code_version: str,
    version: str,
    fitter: Fitter,
    folder: Path,
    parameters: Parameters | None = None,
) -> TrainedModel:
    """Train on what was known before cutoff 00:00 UTC: no row outside of the model's three windows is used.

    Imbalance: healthy rows may be thinned out, with weights that keep the failure rate. Scores become probabilities to be taken
    at their word on the calibration window (Platt), and that failures are rare is met by the threshold: the one whose alerts
    would have cost least there. A component that never fails in the training window is not learnt: all its probabilities are
    1 / (rows + 2), by the rule of succession, and it never alerts. The card says so.
    An observation of a component that was replaced within the horizon is neither learnt from nor measured by
    (`events.are_decided`).

    The same rows, settings and seed give the same model. The frames are read more than once: pin their
    versions.

    Args:
        observations: rows of features/observations.
        labels: rows of labels/component_failures.
        failures: rows of raw/failures, of all days; those from the cutoff on are not looked at.
        maintenance: rows of raw/maintenance, likewise.
        cutoff: the day before which everything must have been known.
        settings: window lengths, horizon, costs and seed.
        model_type: classifier of each component.
        data_versions: Delta version of each table read, for the card.
        code_version: for the card.
        version: name of the model.
        fitter: where the pipeline is fitted.
        folder: new folder that the pipeline is saved to.
        parameters: parameters of the classifier that differ from its defaults.

    Raises:
        TrainingError: if there is no observation with a known outcome in the training window, or no component fails in it.
        FitProcessError, NoJava, FitFailed: as of `Fitter.fit`.
    """
    windows = model_windows(cutoff, settings)
    # Filtered before the join: Delta then skips the files of other days.
    table = training_table(
        within(observations, windows.named().values()),
        within(labels, windows.named().values()),
        settings.horizon_hours,
    )
    counts, failing = _count(table, windows)
    _check(counts["train"], settings.horizon_hours)

    one_healthy_in, one_failing_in = thinning(counts["train"].rows - failing, failing)
    seldom = seldom_failing(counts["train"].positives)
    thinned = thin_out(within(table, [windows.train]), one_healthy_in, one_failing_in, settings.seed, seldom)
    rows = (
        without_undecided(thinned, _before(failures, cutoff), _before(maintenance, cutoff), settings.horizon_hours)
        .toArrow()
        # a forest depends on the order of its rows, and an engine's is not the same twice
        .sort_by([(name, "ascending") for name in OBSERVATION_KEY])
    )
    learnt, features = _usable(rows)
    chosen = {**HYPERPARAMETERS[model_type], **(parameters or {})}
    fitted = fitter.fit(
        rows.select([*features, WEIGHT, *LABELS]),
        FitSpec(tuple(learnt), tuple(features), model_type, chosen, settings.seed),
        folder,
    )
    pipeline = SavedPipeline(fitted.folder)
    constants = {c: 1 / (counts["train"].rows + 2) for c in COMPONENTS if c not in learnt}

    rules, costs = Rules.of(settings), Costs.of(settings)
    history = _history(failures, maintenance, cutoff)
    unseen = _in_order(within(table, [windows.calibration, windows.test]))
    scores, signs = _scores(unseen, pipeline, constants, windows, history, rules)
    tuned_on = {c: scores["calibration"][c].decided for c in learnt}
    calibration = {c: fit_platt(its.probability, its.fails) for c, its in tuned_on.items()}
    outcomes = {name: _calibrated(by_component, calibration) for name, by_component in scores.items()}
    curves = {
        name: curves_of(by_component, history, windows.named()[name], rules, costs) for name, by_component in outcomes.items()
    }
    thresholds, notes = _thresholds(outcomes["calibration"], constants, curves["calibration"], costs)
    learnt_from = _learnt_from(rows)
    usual = {name: _median(*its) for name, its in learnt_from.items() if not np.isnan(its[0]).all()}
    healthy = _healthy(usual)
    references = {name: reference_of(values, weights) for name, (values, weights) in learnt_from.items()}
    references |= {c: reference_of(outcome.probability) for c, outcome in outcomes["test"].items()}
    unknown = sorted(set((*NUMERIC_FEATURES, *CATEGORICAL_FEATURES)) - set(features))
    if unknown:
        notes.append(f"not used, for no row of the training window has a value: {', '.join(unknown)}")
    card = ModelCard(
        version=version,
        model_type=model_type,
        horizon_hours=settings.horizon_hours,
        cutoff=cutoff,
        windows=counts,
        rows_fitted=rows.num_rows,
        one_healthy_in=one_healthy_in,
        one_failing_in=one_failing_in,
        parameters=chosen,
        seed=settings.seed,
        features=features,
        calibration=calibration,
        thresholds=thresholds,
        constant_probabilities=constants,
        metrics={name: _metrics(by_component, thresholds) for name, by_component in outcomes.items()},
        events=report(
            outcomes["test"], thresholds, history, signs["test"], healthy, window=windows.test, rules=rules, costs=costs
        ),
        capacity=at_capacity(outcomes["test"], history, settings.crew_visits_a_day, window=windows.test, rules=rules),
        healthy=healthy,
        usual=usual,
        references=references,
        importances=fitted.importances,
        data_versions=dict(data_versions),
        code_version=code_version,
        notes=tuple(notes),
    )
    bench = Bench(unseen, windows, history, signs["test"], rules, costs)
    return TrainedModel(pipeline, card, outcomes, curves, bench, fitted.seconds)


def examine(
    pipeline: SavedPipeline,
    card: ModelCard,
    observations: DataFrame,
    labels: DataFrame,
    failures: DataFrame,
    maintenance: DataFrame,
    *,
    cutoff: dt.date,
    settings: Settings,
) -> ModelCard:
    """The card of a model with the events and test metrics of another time or fleet: the test window before a cutoff.

    Calibration, thresholds and what is healthy stay the model's own. The frames are as for `train`.
    """
    windows = model_windows(cutoff, settings)
    table = training_table(within(observations, [windows.test]), within(labels, [windows.test]), settings.horizon_hours)
    rules, costs = Rules.of(settings), Costs.of(settings)
    history = _history(failures, maintenance, cutoff)
    scores, signs = _scores(_in_order(table), pipeline, card.constant_probabilities, windows, history, rules)
    outcomes = _calibrated(scores["test"], card.calibration)
    events = report(
        outcomes,
        card.thresholds,
        history,
        signs["test"],
        card.healthy,
        window=windows.test,
        rules=rules,
        costs=costs,
    )
    positives = {c: int(outcome.fails.sum()) for c, outcome in outcomes.items()}
    test = WindowCounts(windows.test, len(next(iter(outcomes.values())).fails), positives)
    return dataclasses.replace(
        card,
        cutoff=cutoff,
        windows={**card.windows, "test": test},
        events=events,
        metrics={**card.metrics, "test": _metrics(outcomes, card.thresholds)},
    )


def weigh(challenger: TrainedModel, incumbent: tuple[SavedPipeline, ModelCard] | None) -> Verdict:
    """The gate's verdict on a trained model, on its test window: rows that neither model has learnt from or was tuned on.

    An incumbent that was tuned on some of them (windows were longer in its time) can't be compared: the challenger is refused.
    """
    bench = challenger.bench
    window, its = bench.windows.test, challenger.outcomes["test"]

    def contends(name: str, outcomes: Mapping[str, Outcomes], alerts: Mapping[str, metrics.Bools]) -> Contender:
        return contender(name, alerts, outcomes, bench.history, window=window, rules=bench.rules)

    ours = contends(challenger.card.version, its, _alerts(its, challenger.card.thresholds))
    by_rule = {c: rule_alerts(c, bench.signs, challenger.card.healthy) for c in its}
    names = list(next(iter(by_rule.values())))
    rules = [contends(f"the rule {name}", its, {c: by_rule[c][name] for c in its}) for name in names]
    if incumbent is None:
        return decide(ours, None, rules, bench.costs)
    pipeline, card = incumbent
    # the outcomes of its last day were known a horizon later
    tuned_until = card.windows["calibration"].window.end + dt.timedelta(days=-(-card.horizon_hours // 24))
    if tuned_until > window.start:
        found = f"{card.version} was tuned on what was known before {tuned_until}, the test window begins on {window.start}"
        return Verdict(False, (Condition("later rows than the incumbent's", False, found),))
    scores, _ = _scores(bench.rows, pipeline, card.constant_probabilities, bench.windows, bench.history, bench.rules)
    theirs = _calibrated(scores["test"], card.calibration)
    return decide(ours, contends(card.version, theirs, _alerts(theirs, card.thresholds)), rules, bench.costs)


def _count(table: DataFrame, windows: Windows) -> tuple[dict[WindowName, WindowCounts], int]:
    """Rows and positives of each window, and the rows of the training window on which any component fails."""
    found = {
        row["window"]: row
        for row in table.groupBy(_window_name(windows.named()).alias("window"))
        .agg(
            F.count("*").alias("rows"),
            F.count_if(any_failure()).alias("failing"),
            *(F.count_if(F.col(label) == 1.0).alias(label) for label in LABELS),
        )
        .collect()
    }
    counts = {}
    for name, window in windows.named().items():
        row = found[name].asDict() if name in found else dict.fromkeys(("rows", "failing", *LABELS), 0)
        counts[name] = WindowCounts(window, row["rows"], {c: row[label_of(c)] for c in COMPONENTS})
    return counts, found["train"]["failing"] if "train" in found else 0


def _window_name(windows: Mapping[WindowName, Window]) -> F.Column:
    return F.coalesce(*(F.when(is_in(window), name) for name, window in windows.items()))


def _check(train_counts: WindowCounts, horizon_hours: int) -> None:
    where = f"the training window [{train_counts.window.start}, {train_counts.window.end})"
    if train_counts.rows == 0:
        raise TrainingError(f"no observation in {where} has a known outcome {horizon_hours} h ahead")
    if not any(train_counts.positives.values()):
        raise TrainingError(
            f"none of {', '.join(COMPONENTS)} fails within {horizon_hours} h of any of the "
            f"{train_counts.rows} observations in {where}: there is nothing to learn"
        )


def _usable(rows: pa.Table) -> tuple[list[str], tuple[str, ...]]:
    """Components with a failure, and features with a value."""
    learnt = [component for component in COMPONENTS if pc.sum(rows[label_of(component)]).as_py()]
    features = (*NUMERIC_FEATURES, *CATEGORICAL_FEATURES)
    return learnt, tuple(f for f in features if f not in NULLABLE_FEATURES or not np.isnan(_values(rows, f)).all())


def _values(rows: pa.Table, name: str) -> metrics.Floats:
    """A numeric column; what is not known is NaN."""
    return rows[name].cast(pa.float64()).to_numpy()


def _in_order(rows: DataFrame) -> pa.Table:
    """Rows of the training table by key: sums of floats depend on their order, and an engine's is not the same twice."""
    return rows.toArrow().sort_by([(name, "ascending") for name in OBSERVATION_KEY])


def _scores(
    rows: pa.Table,
    pipeline: SavedPipeline,
    constants: Mapping[str, float],
    windows: Windows,
    history: Mapping[str, History],
    rules: Rules,
) -> tuple[dict[WindowName, dict[str, Outcomes]], dict[WindowName, dict[str, metrics.Floats]]]:
    """Uncalibrated scores with what came of them, and the features that rules look at; by window."""
    named: dict[WindowName, Window] = {"calibration": windows.calibration, "test": windows.test}
    scores: dict[WindowName, dict[str, Outcomes]] = {}
    signs: dict[WindowName, dict[str, metrics.Floats]] = {}
    for name, window in named.items():
        after, before = (pa.scalar(at, rows["observed_at"].type) for at in (window.start_at, window.end_at))
        inside = pc.and_(pc.greater_equal(rows["observed_at"], after), pc.less(rows["observed_at"], before))
        its = rows.filter(inside)
        observed = _moments(its, "observed_at")
        found = pipeline.scores(numpy_columns(its), [c for c in COMPONENTS if c not in constants])
        found |= {c: np.full(its.num_rows, constant) for c, constant in constants.items()}
        scores[name] = {
            c: Outcomes(
                found[c],
                its[label_of(c)].to_numpy() == 1.0,
                observed,
                are_decided(observed, history[c].failures, history[c].closings, rules.horizon_hours),
            )
            for c in COMPONENTS
        }
        signs[name] = {feature: _values(its, feature) for feature in RULE_FEATURES}
    return scores, signs


def _calibrated(scores: Mapping[str, Outcomes], calibration: Mapping[str, Platt]) -> dict[str, Outcomes]:
    return {
        c: outcome._replace(probability=calibration[c].of(outcome.probability)) if c in calibration else outcome
        for c, outcome in scores.items()
    }


def _history(failures: DataFrame, maintenance: DataFrame, cutoff: dt.date) -> dict[str, History]:
    """Failures and closings of each component before the cutoff."""
    failed = _before(failures, cutoff).select("machine_id", F.col("failed_at").alias("at"), "component")
    replaced = _before(maintenance, cutoff).select("machine_id", F.col("performed_at").alias("at"), "component")
    found = failed.withColumn("is_failure", F.lit(True)).unionByName(replaced.withColumn("is_failure", F.lit(False))).toArrow()
    moments, component = _moments(found, "at"), found["component"].to_numpy(zero_copy_only=False)
    is_failure = found["is_failure"].to_numpy(zero_copy_only=False).astype(bool)
    return {c: History(moments.where((component == c) & is_failure), moments.where(component == c)) for c in COMPONENTS}


def _before(rows: DataFrame, cutoff: dt.date) -> DataFrame:
    return rows.where(F.col(DATE) < F.lit(cutoff))


def _moments(rows: pa.Table, instant: str) -> Moments:
    return Moments(rows["machine_id"].to_numpy(), rows[instant].cast("int64").to_numpy() // 1_000_000)


def _learnt_from(rows: pa.Table) -> dict[str, tuple[metrics.Floats, metrics.Floats]]:
    """Values and weights of each numeric feature in the fitted rows, NaN where it is not known."""
    weights = rows[WEIGHT].to_numpy()
    return {name: (_values(rows, name), weights) for name in NUMERIC_FEATURES}


def _median(values: metrics.Floats, weights: metrics.Floats) -> float:
    """Of the rows that the thinned ones stand for: failing machines are few, but may be many of the rows that were kept."""
    known = ~np.isnan(values)
    return float(np.quantile(values[known], 0.5, weights=weights[known], method="inverted_cdf"))


def _healthy(usual: Mapping[str, float]) -> dict[str, Healthy]:
    return {
        channel: Healthy(usual[mean_of(channel)], usual[deviation_of(channel)] / SHIFT_HOURS**0.5)
        for channel in CHANNEL_NAMES
        if mean_of(channel) in usual and deviation_of(channel) in usual
    }


def curves_of(
    outcomes: Mapping[str, Outcomes], history: Mapping[str, History], window: Window, rules: Rules, costs: Costs
) -> dict[str, CostCurve | None]:
    """The cost curve of each component's probabilities in a window."""
    return {
        component: cost_curve(
            probability,
            observed,
            history[component].failures,
            history[component].closings,
            start=int(window.start_at.timestamp()),
            end=int(window.end_at.timestamp()),
            rules=rules,
            costs=costs,
        )
        for component, (probability, _, observed, _) in outcomes.items()
    }


def _thresholds(
    outcomes: Mapping[str, Outcomes],
    constants: Mapping[str, float],
    curves: Mapping[str, CostCurve | None],
    costs: Costs,
) -> tuple[dict[str, float], list[str]]:
    thresholds, notes = {}, []
    for component in outcomes:
        if component in constants:
            notes.append(f"{component} never fails in the training window: it is not foretold")
            thresholds[component] = NEVER
            continue
        if curves[component] is None:
            fair = fair_threshold(costs)
            notes.append(
                f"no failure of {component} was due in the calibration window: "
                f"its threshold {fair:.3g} follows from the costs alone"
            )
        thresholds[component] = cheapest_threshold(curves[component], costs)
    return thresholds, notes


def _alerts(outcomes: Mapping[str, Outcomes], thresholds: Mapping[str, float]) -> dict[str, metrics.Bools]:
    return {c: outcome.probability >= thresholds[c] for c, outcome in outcomes.items()}


def _metrics(outcomes: Mapping[str, Outcomes], thresholds: Mapping[str, float]) -> dict[str, metrics.Metrics]:
    decided = {c: outcome.decided for c, outcome in outcomes.items()}
    alerts = {c: its[outcomes[c].is_decided] for c, its in _alerts(outcomes, thresholds).items()}
    probability, fails, rate = pooled(list(decided.values()))
    return {
        **{c: metrics.evaluate(its.probability, its.fails, alerts[c]) for c, its in decided.items()},
        POOLED: metrics.evaluate(probability, fails, np.concatenate(list(alerts.values())), rate),
    }
