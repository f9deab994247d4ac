import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.axes import Axes

from pdm_assets.models import pictures
from pdm_assets.models.backtest import folds_of
from pdm_assets.models.calibration import CostCurve
from pdm_assets.models.evaluation import Outcomes
from pdm_assets.models.events import Moments
from pdm_assets.models.model_page import CAPTIONS, headline, load, page
from pdm_assets.models.promotion import Condition, Verdict
from pdm_assets.models.reports import Tabular, backtest, baselines, components, intervals, leads, observations
from pdm_assets_tests.builders import day
from pdm_assets_tests.models.test_card import CARD

OBSERVED = Moments(np.array([1, 1]), np.array([0, 43_200]))
BOTH = np.array([True, True])
OUTCOMES = {
    "comp1": Outcomes(np.array([0.9, 0.1]), np.array([True, False]), OBSERVED, BOTH),
    "comp2": Outcomes(np.array([0.2, 0.1]), np.array([False, False]), OBSERVED, BOTH),
}
CURVES = {
    "calibration": {"comp1": CostCurve(np.array([0.1, 0.5]), np.array([30.0, 10.0])), "comp2": None},
    "test": {"comp1": CostCurve(np.array([0.1, 0.6]), np.array([40.0, 20.0])), "comp2": None},
}
REFUSED = Verdict(False, (Condition("cheap enough", False, "<b>a fortune</b>"), Condition("calibrated", True, "0.01")))
FOLDS = folds_of(CARD, 12.5)


def test_a_table_is_markdown_and_a_bar_in_a_cell_does_not_break_it():
    assert Tabular(("a", "b"), (("1", "x|y"),)).markdown == "| a | b |\n| --- | --- |\n| 1 | x\u00a6y |"


def test_the_model_stands_beside_its_baselines():
    table = baselines(CARD)
    assert table.rows[0] == ("random_forest", "2 of 3 (66.7%)", "66.7%", "0.050", "24 h", "14,500")
    assert table.rows[-1] == ("calendar (comp1 every 45 d)", "", "", "", "", "25,000")


def test_each_component_has_a_line_and_what_is_not_known_is_left_blank():
    (pooled,) = components(CARD).rows
    assert pooled == (*("pooled", *baselines(CARD).rows[0][1:]), "", "0.500", "", "0.10000", "-0.500", "0.0100", "0.90", "")
    assert observations(CARD).rows[0] == ("comp1", "0", "0", "1", "3", "", "0.000", "0.000")
    assert leads(CARD).rows == (("pooled", "", "75.0%", "50.0%", "12 h"),)
    assert intervals(CARD).rows == (("pooled", "50.0% to 100.0%", "", "", "", ""),)


def test_the_backtest_says_the_mean_and_in_brackets_the_worst():
    table = backtest([*FOLDS, dataclasses.replace(FOLDS[0], cutoff=day("2016-01-01"), cost=10_500.0, event_recall=1.0)])
    assert table.head[0] == "mean (worst) of 2 folds"
    ours = next(row for row in table.rows if row[0] == "random_forest")
    assert ours[1:3] == ("12,500 (14,500)", "83.3% (66.7%)")


@pytest.mark.parametrize("tables", [baselines, components, observations, leads, intervals])
def test_every_row_is_as_long_as_the_head(tables):
    table = tables(CARD)
    assert {len(row) for row in table.rows} == {len(table.head)}


def png_size(picture):
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(picture[16:20]), int.from_bytes(picture[20:24])


def test_pictures_are_png_small_enough_for_a_browser_and_all_have_a_caption():
    trained = SimpleNamespace(card=CARD, outcomes={"test": OUTCOMES}, curves=CURVES)
    found = {**pictures.pictures_of(trained), "backtest": pictures.backtest_picture(FOLDS)}
    assert set(found) == set(CAPTIONS)
    for picture in found.values():
        width, height = png_size(picture)
        assert 600 < width < 1_000
        assert 400 < height < 800


@pytest.mark.parametrize(("horizon", "longest"), [(48, 51.5), (48, 300.0), (50, 50.0), (168, 12.0)])
def test_every_lead_is_in_the_picture_of_leads(monkeypatch, horizon, longest):
    counted, histogram = [], Axes.hist

    def counting(axes, values, **given):
        counted.append(histogram(axes, values, **given))

    monkeypatch.setattr(Axes, "hist", counting)
    pooled = dataclasses.replace(CARD.events["pooled"], leads_hours=(0.5, 12.0, longest))
    pictures.leads_picture(dataclasses.replace(CARD, horizon_hours=horizon, events={"pooled": pooled}))
    ((counts, edges, _),) = counted
    assert sum(counts) == 3
    assert edges[-1] >= horizon


def test_an_interval_of_a_share_holds_it_and_stays_within_zero_and_one():
    low, high = pictures.wilson(np.array([0.0, 5.0, 10.0]), np.array([10.0, 10.0, 10.0]))
    # by hand, z = 1.645: of 5 in 10 the centre is (5 + 1.353) / 12.706, the half width 1.645 / 12.706 * sqrt(2.5 + 0.6765)
    assert (low[1], high[1]) == pytest.approx((0.5 - 0.2307, 0.5 + 0.2307), abs=1e-4)
    assert low[0] == pytest.approx(0.0, abs=1e-12)
    assert high[0] == pytest.approx(1.3530 * 2 / 12.7060, abs=1e-3)
    assert high[2] == pytest.approx(1.0)
    for of in range(1, 200):  # to the last digit, or the picture can't be drawn
        hits = np.arange(of + 1.0)
        low, high = pictures.wilson(hits, np.full(of + 1, float(of)))
        share = hits / of
        assert ((low >= 0) & (low <= share) & (share <= high) & (high <= 1)).all()


def test_the_headline_says_what_a_crew_would_have_had():
    assert headline(CARD) == (
        "From 2015-10-30 to before 2015-11-29 it would have warned of 2 of 3 failures (90 % sure of 50% to 100%), half of them "
        "24 h ahead or more. 2 of 3 alarms were right. Acting on them would have cost 14,500, 42% less than replacing by the "
        "calendar."
    )


def test_the_load_of_the_crew_is_said_as_far_as_it_is_known():
    assert load(CARD) == (
        "0.4 machines alarmed a day. Of 10 visits a day to the most probable components, alarm or not, 50% would have been to "
        "one that failed within 48 h."
    )


def test_the_headline_of_a_quiet_window_claims_nothing():
    report = CARD.events["pooled"]
    quiet = dataclasses.replace(report, observed=dataclasses.replace(report.observed, failures=0, caught=0, event_recall=None))
    assert headline(dataclasses.replace(CARD, events={"pooled": quiet})).startswith("No failure was due in the test window")


def test_the_page_has_it_all_loads_nothing_and_takes_text_for_text():
    html = page(CARD, REFUSED, FOLDS, {"lead_times": b"png"})
    assert 'class="verdict refused"' in html
    assert "&lt;b&gt;a fortune&lt;/b&gt;" in html
    assert 'src="data:image/png;base64,cG5n"' in html
    assert CARD.notes[0] in html
    assert "Month by month" in html
    assert "Month by month" not in page(CARD, REFUSED, [], {})
    assert not re.search(r"https?://|<script|<link", html)
