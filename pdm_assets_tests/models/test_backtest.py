import dataclasses
import datetime as dt

import pytest

from pdm_assets.assets.training import folds_before
from pdm_assets.models.backtest import (
    Fold,
    MeanAndWorst,
    TooLittleHistory,
    compared,
    fold_days,
    fold_settings,
    folds_of,
    last_twelve_months,
    summarize,
    terms_of,
)
from pdm_assets.models.windows import model_windows
from pdm_assets.schemas.features import BACKTEST
from pdm_assets.settings import Settings
from pdm_assets_tests.builders import day
from pdm_assets_tests.models.test_card import CARD

MODEL = folds_of(CARD, 12.5)[0]


def fold(cutoff, model_type="random_forest", **changed):
    return dataclasses.replace(MODEL, cutoff=day(cutoff), model_type=model_type, **changed)


def test_a_fold_belongs_to_the_first_of_a_month():
    days = [day("2015-01-31") + dt.timedelta(days=n) for n in range(31)]
    assert fold_days(reversed(days)) == [day("2015-02-01"), day("2015-03-01")]


def test_a_fold_has_the_windows_of_a_model_whose_training_begins_with_complete_observations():
    # 48 h of gap before each window's outcomes are known: 30 + 2 + 30 + 2 + 2 days lie between training and cutoff
    settings = Settings()
    assert fold_settings(day("2016-01-01"), day("2015-01-01"), settings) == settings
    short = fold_settings(day("2015-07-01"), day("2015-01-01"), settings)
    windows = model_windows(day("2015-07-01"), short)
    assert windows.train.start == day("2015-01-03")
    assert windows.train.end == day("2015-07-01") - dt.timedelta(days=66)
    assert windows.test == model_windows(day("2015-07-01"), settings).test


def test_a_fold_that_would_learn_from_less_than_three_months_is_none_and_says_from_when_on_it_works():
    first, least = day("2015-01-01"), dt.timedelta(days=2 + 90 + 66)
    assert fold_settings(first + least, first, Settings()).train_days == 90
    with pytest.raises(TooLittleHistory, match=f"89 days are left .* folds work from {first + least} on"):
        fold_settings(first + least - dt.timedelta(days=1), first, Settings())
    with pytest.raises(TooLittleHistory, match="0 days are left"):
        fold_settings(first, first, Settings())
    # whoever asks for a shorter training window gets it
    assert fold_settings(day("2015-04-01"), first, Settings(train_days=20)).train_days == 20


def test_a_fold_is_what_the_card_says_of_its_test_window():
    assert [(f.component, f.cutoff, f.train_days) for f in folds_of(CARD, 12.5)] == [("pooled", CARD.cutoff, 270)]
    assert (MODEL.caught, MODEL.failures, MODEL.cost, MODEL.never_cost) == (2, 3, 14_500.0, 30_000.0)
    assert (MODEL.best_rule, MODEL.best_rule_cost, MODEL.average_precision) == ("own error", 14_500.0, 0.5)
    assert MODEL.fit_seconds == 12.5


def test_a_fold_has_the_columns_of_its_table():
    names = {field.name for field in dataclasses.fields(Fold)} - {"cutoff"}
    assert names == {column.name for column in BACKTEST.columns} - {"terms"}


def test_the_last_twelve_months_are_twelve_whatever_there_is():
    first = day("2014-01-01")
    months = fold_days(first + dt.timedelta(days=n) for n in range(3 * 365))
    found = last_twelve_months([fold(str(month)) for month in reversed(months)])
    assert [its.cutoff for its in found] == months[-12:]
    assert last_twelve_months([]) == []


BACKTEST_FIGURES = [column.name for column in BACKTEST.columns if column.name != "terms"]


class BacktestTable:
    """Stands in for a lake: rows of models/backtest by day."""

    def __init__(self, *folds):
        self.folds = folds

    def exists(self, table):
        return table == BACKTEST

    def rows(self, table, start, end):
        return [
            {**{name: getattr(its, name) for name in BACKTEST_FIGURES}, "date": its.cutoff, "terms": terms_of(settings)}
            for its, settings in self.folds
            if start <= its.cutoff < end
        ]


def test_folds_that_other_settings_made_are_not_shown_beside_those_of_the_present():
    now = Settings()
    others = [
        dataclasses.replace(now, **changed)
        for changed in (
            {"horizon_hours": 24},
            {"cadence_hours": 6},
            {"least_lead_hours": 12},
            {"cost_missed_failure": 20_000.0},
            {"cost_false_visit": 500.0},
            {"cost_planned_repair": 3_000.0},
        )
    ]
    table = BacktestTable(
        (fold("2015-10-01"), now),
        *((fold("2015-11-01"), other) for other in others),
        (fold("2015-12-01"), dataclasses.replace(now, train_days=100)),
    )
    assert [its.cutoff for its in folds_before(table, day("2016-01-01"), now)] == [day("2015-10-01"), day("2015-12-01")]
    assert [its.cutoff for its in folds_before(table, day("2015-12-01"), now)] == [day("2015-10-01")]


def test_the_summary_has_the_mean_and_the_worst_and_the_cheapest_first():
    folds = [
        fold("2015-10-01", cost=10.0, event_recall=1.0, calibration_error=0.01, best_rule_cost=20.0),
        fold("2015-11-01", cost=30.0, event_recall=0.8, calibration_error=None, best_rule_cost=30.0),
        fold("2015-11-01", component="comp1", cost=99.0),
    ]
    found = summarize(folds)
    assert list(found) == ["random_forest", "best rule", "calendar", "never acting"]
    forest = found["random_forest"]
    assert forest["cost"] == MeanAndWorst(20.0, 30.0)
    assert forest["event_recall"] == MeanAndWorst(0.9, 0.8)
    assert forest["calibration_error"] == MeanAndWorst(0.01, 0.01)
    assert found["best rule"] == {"cost": MeanAndWorst(25.0, 30.0)}
    assert summarize(folds, "comp1")["random_forest"]["cost"] == MeanAndWorst(99.0, 99.0)


def test_types_are_compared_on_the_folds_that_all_of_them_have():
    folds = [
        fold("2015-10-01", cost=1_000.0),
        fold("2015-11-01", cost=20.0),
        fold("2015-11-01", "decision_tree", cost=10.0),
        fold("2015-12-01", "decision_tree", cost=5_000.0),
    ]
    assert compared(folds) == (["decision_tree", "random_forest"], {day("2015-11-01")})
    found = summarize(folds)
    assert list(found)[:2] == ["decision_tree", "random_forest"]
    assert found["decision_tree"]["cost"] == MeanAndWorst(10.0, 10.0)


def test_one_trial_of_another_type_does_not_hide_the_other_months():
    months = [f"2015-{month:02d}-01" for month in range(1, 13)]
    forest = [fold(month, cost=float(n)) for n, month in enumerate(months)]
    for trial in ("2015-02-01", "2015-12-01"):
        folds = [*forest, fold(trial, "decision_tree", cost=0.0)]
        assert compared(folds) == (["random_forest"], set(map(day, months)))
        assert summarize(folds)["random_forest"]["cost"] == MeanAndWorst(5.5, 11.0)
        assert "decision_tree" not in summarize(folds)
    half = [fold(month, "decision_tree") for month in months[6:]]
    assert compared([*forest, *half])[1] == set(map(day, months[6:]))


def test_after_a_change_of_type_the_new_one_is_summarized_alone():
    folds = [fold("2015-10-01"), fold("2015-11-01", "decision_tree")]
    assert compared(folds) == (["decision_tree"], {day("2015-11-01")})
    assert "decision_tree" in summarize(folds)
    assert (compared([]), summarize([])) == (([], set()), {})
