"""scripts/plan_capacity.py: what it reads, the lines it fits, what it makes of them, and that docs/cost.md says the same."""

import dataclasses
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "benchmarks")]

import growth
import measured as lines
import plan_capacity as planner
from measured import GIB, MIB, Line, PlanError, fit
from plan_capacity import Plan, needs

# 400 days, of which 338 pass before a first model: 62 have scores. All of it lies on lines, so they can be worked out by hand.
SECTION = """
## {machines} machines x 400 days

2 cores, 20 GiB, Python 3.11.7, 2026-11-23: `make bench MACHINES={machines}`

| work | time | of which, in seconds |
| --- | --- | --- |
| engine start | 15.0 s |  |
| landing to raw, the range | {raw} s | land_telemetry {raw} |
| raw to features, the range | {features} s | observations {features}, observations_later_days_have_seen_this_run 0.1 |
| labels, the range | 10.0 s | component_failures 9.0 |
| models, the range (training included) | {models} s | failure_model {models} |
| scores, the range | {scores} s | component_risk {scores} |
| all of it once more, as one range run | 90.0 s | observations 20.0, land_telemetry {again}, land_errors 5.0 |
| new day 1 from file to scores, warm | 20.0 s | observations 5.0, component_risk 4.0, land_errors 1.0, land_telemetry 2.0 |
| new day 2 from file to scores, warm | 22.0 s | observations 5.0, component_risk 4.0, land_errors 1.0, land_telemetry 2.0 |
| memory of the engine (resident) | {memory} GiB |  |
| files in the lake | 1,234, 56 MiB |  |
| a new day from file to scores, engine cold | 61.0 s | land_machines 30.0 |
"""
SMALL = {"machines": 100, "raw": 48, "features": 14, "models": 50, "scores": 6.24, "again": 19, "memory": 1.5}
LARGE = {"machines": 1000, "raw": 120, "features": 50, "models": 95, "scores": 12.4, "again": 55, "memory": 2.4}
TIMES = "# Measured\n" + SECTION.format(**SMALL) + SECTION.format(**LARGE)
FOLDERS = {
    "Delta logs": 100,
    "dagster": 50,
    "lake/features": 0,
    "lake/labels": 0,
    "lake/raw": 200,
    "lake/scores": 0,
    "landing": 0,
    "landing, if it were .csv.gz": 0,
    "staging": 0,
    "a model's folder, by training": 2_000_000,
}
EACH = {
    "lake/features": 40,
    "lake/labels": 10,
    "lake/raw": 90,
    "lake/scores": 20,
    "landing": 250,
    "landing, if it were .csv.gz": 80,
    "staging": 100,
}


def stored(machines):
    rows = "".join(f"| {name} | {fixed + EACH.get(name, 0) * machines:,} |\n" for name, fixed in FOLDERS.items())
    return f"\n## {machines} machines\n\nSaid.\n\n| a new day adds | bytes |\n| --- | --- |\n{rows}"


BYTES = "# Bytes on disk\n" + stored(100) + stored(1000)


def model_of(times=TIMES, sizes=BYTES):
    return lines.Model.of(lines.read_times(times), lines.read_bytes(sizes))


MODEL = model_of()


def plan(machines, **changed):
    return Plan(machines=machines, **{"cores": 2, "memory_gib": 20.0, **changed})


@pytest.mark.parametrize(
    ("points", "line"),
    [
        ([(1, 3), (3, 7)], Line(1, 2)),
        ([(0, 1), (1, 2), (2, 6)], Line(0.5, 2.5)),  # mean (1, 3), slope (2 + 3) / 2
        ([(1, 5), (2, 3)], Line(4, 0)),  # it would fall: the mean
        ([(1, 0), (2, 3)], Line(0, 1.2)),  # it would begin below zero: (0 + 6) / (1 + 4)
    ],
)
def test_a_line_is_the_least_squares_without_negative_coefficients(points, line):
    found = fit(points)
    assert (found.fixed, found.each) == pytest.approx((line.fixed, line.each))


def test_the_sample_is_read_row_by_row():
    small, large = lines.read_times(TIMES)
    assert (small.machines, small.days, small.cores, small.memory_gib) == (100, 400, 2, 20)
    assert [row.seconds for row in small.times("new day")] == [20.0, 22.0]
    assert large.times("landing to raw")[0].steps == {"land_telemetry": 120.0}
    assert lines.read_bytes(BYTES)[1000]["landing"] == 250_000


def test_the_lines_of_the_sample_are_those_worked_by_hand():
    assert lines.days_before_a_model() == 338
    # 40,000 and 400,000 machine days: raw 72 s more in 360,000, features 36 s; scores 6.16 s in 900 * 62
    assert MODEL.ranges["raw"].each == pytest.approx(200e-6)
    assert MODEL.ranges["raw"].fixed == pytest.approx(40)
    assert MODEL.ranges["features"].each == pytest.approx(100e-6)
    assert MODEL.ranges["labels"] == Line(10, 0)
    assert MODEL.ranges["scores"].each == pytest.approx(6.16 / 55_800)
    # the second time nothing is staged: land_ steps 24 and 60 s
    assert MODEL.staging == pytest.approx(100e-6)
    assert MODEL.training.each == pytest.approx(0.05)
    assert MODEL.training.fixed == pytest.approx(45)
    assert MODEL.cold == pytest.approx(40)  # 61 s beside the median of 20 and 22
    # 3 s of land_ steps less 0.02 and 0.2 s of machines; 21 s less 12 s of steps
    assert MODEL.new_day["raw"] == pytest.approx(3 - 0.11)
    assert MODEL.new_day["features"] == pytest.approx(5 - 0.055)
    assert MODEL.new_day[lines.REST] == pytest.approx(9)
    assert MODEL.engine_bytes.at(400_000) == pytest.approx(2.4 * GIB)


def test_a_plan_of_five_thousand_machines_is_that_worked_by_hand():
    its = needs(MODEL, plan(5_000))
    scores = 4 - (0.1 + 1) / 2 * 6.16 / 55_800 * 1000 + 5_000 * 6.16 / 55_800
    assert its.by_stage["raw"] == pytest.approx(2.89 + 1.0)
    assert its.by_stage["features"] == pytest.approx(4.945 + 0.5)
    assert its.by_stage["scores"] == pytest.approx(scores)
    assert its.new_day == pytest.approx(2.89 + 1 + 4.945 + 0.5 + scores + 9 + 40)
    assert its.training == pytest.approx(45 + 250)
    assert its.core_seconds["training"] == pytest.approx(295 / 28 * 2)
    # 400,000 machine days were measured in a run: 80 days of 5,000 machines, so five runs a year
    assert its.backfill_runs == 5
    ranges = 5 * (40 + 10 + 10 + MODEL.ranges["scores"].fixed) + 15 + 295
    assert its.backfill == pytest.approx(ranges + 5_000 * 365 * 300e-6 + 5_000 * 27 * 6.16 / 55_800)
    assert its.kept["lake/raw"] == pytest.approx(365 * (200 + 90 * 5_000))
    assert its.kept["models"] == pytest.approx(2_000_000 * 14)
    assert its.written_a_day == pytest.approx(350 + 510 * 5_000 + 28_000_000 / 365)
    assert its.training_result_bytes == 5_000 * 60 * 2 * 160
    assert its.troubles == []
    assert its.cost_of_machine == pytest.approx(2 * 24 * 0.05)
    assert its.cost_of_runs == pytest.approx(sum(its.core_seconds.values()) / 3600 * 0.05)
    assert its.cost_of_storage == pytest.approx(sum(its.kept.values()) / GIB * 0.02 / (365.25 / 12))


def test_cores_help_what_spark_splits_and_nothing_else():
    two, eight = needs(MODEL, plan(5_000)), needs(MODEL, plan(5_000, cores=8))
    # of raw 1 s a day by machines half is staging, by one process: of the other half a quarter is left
    assert two.by_stage["raw"] - eight.by_stage["raw"] == pytest.approx(0.5 * 0.75)
    assert two.by_stage["features"] - eight.by_stage["features"] == pytest.approx(0.5 * 0.75)
    assert two.training == eight.training
    assert eight.by_stage[lines.REST] == two.by_stage[lines.REST]


def test_hourly_runs_write_the_day_anew_and_keep_what_they_replace():
    daily, hourly = needs(MODEL, plan(1_000)), needs(MODEL, plan(1_000, runs_per_day=24, keep_days=10))
    size = 200 + 90 * 1_000
    assert hourly.kept["lake/raw"] == pytest.approx(size * (365 + 11.5 * 10))
    assert hourly.kept["lake/features"] == pytest.approx(daily.kept["lake/features"] * (1 + 11.5))  # models name their versions
    assert hourly.kept["landing"] == daily.kept["landing"] == 250_000 * 365
    assert hourly.kept["Delta logs"] == pytest.approx(100 * 24 * 365)
    assert needs(MODEL, plan(1_000, runs_per_day=24, idle_minutes=90)).by_stage["engine start"] == 0
    assert hourly.by_stage["engine start"] == pytest.approx(40)  # an hour is longer than twenty minutes


def test_a_finer_cadence_and_more_readings_are_more_of_what_depends_on_them():
    usual, fine = needs(MODEL, plan(5_000)), needs(MODEL, plan(5_000, cadence_hours=6))
    assert fine.by_stage["features"] - usual.by_stage["features"] == pytest.approx(0.5 * 3)  # twice the rows, range frames
    assert fine.by_stage["raw"] == usual.by_stage["raw"]
    assert fine.kept["lake/features"] == 2 * usual.kept["lake/features"]
    dense = needs(MODEL, plan(5_000, readings_per_hour=6))
    assert dense.kept["landing"] == 6 * usual.kept["landing"]
    assert dense.by_stage["scores"] == usual.by_stage["scores"]


def test_a_run_of_many_rows_takes_longer_to_plan():
    few, many = needs(MODEL, plan(10_000)), needs(MODEL, plan(10_001))
    assert many.by_stage[lines.REST] - few.by_stage[lines.REST] == pytest.approx(15)


def test_what_one_machine_does_not_bear_is_said():
    assert needs(MODEL, plan(1_000, window_hours=0.01)).troubles == ["a run takes longer than 0.01 h"]
    assert needs(MODEL, plan(1_000, window_hours=0.03)).troubles == ["a run that trains takes longer than 0.03 h"]
    # 2.4 GiB at 400,000 machine days and 0.9 GiB more for each 360,000: 8.6 million of a training's 338 days of 25,500 machines
    # are 22.9 GiB
    assert needs(MODEL, plan(25_500)).troubles == ["a training needs more than 20 GiB"]
    assert (
        "the backfill takes longer than 0.05 h, and its serial part alone does"
        in needs(MODEL, plan(1_000, backfill_hours=0.05)).troubles
    )
    # 1 GiB / (160 bytes * 120 rows) = 55,924.05 machines
    assert "maxResultSize" not in str(needs(MODEL, plan(55_924)).troubles)
    assert "maxResultSize" in str(needs(MODEL, plan(55_925)).troubles)


def test_how_a_figure_is_known_is_said():
    assert planner.how_known(MODEL, plan(1_000)) == "within what was measured"
    assert planner.how_known(MODEL, plan(100_000)) == "modelled: 100 times the largest measured"
    assert "modelled: 8 cores, not 2" in planner.how_known(MODEL, plan(1_000, cores=8))


def test_of_one_measured_size_bytes_are_in_proportion_and_said_to_be():
    one = model_of(sizes="# Bytes on disk\n" + stored(100))
    assert one.stored["lake/raw"] == Line(0, (200 + 9_000) / 100)
    assert one.stored["Delta logs"] == Line(100, 0)
    assert "bytes modelled: 10 times the largest measured" in planner.how_known(one, plan(1_000))
    assert "**Bytes were measured of 100 machines only**" in planner.told(one, [plan(1_000)])
    assert "Bytes were measured of" not in planner.told(MODEL, [plan(1_000)])


def test_where_the_larger_fleet_took_no_more_memory_that_of_larger_ones_is_not_known():
    model = dataclasses.replace(MODEL, engine_bytes=lines.fit([(40_000, 2.4 * GIB), (400_000, 1.5 * GIB)]))
    small, large = needs(model, plan(1_000)), needs(model, plan(2_000))
    assert (small.engine_bytes_training, large.engine_bytes_training) == (pytest.approx(1.95 * GIB), None)
    told = planner.told(model, [plan(1_000), plan(2_000)])
    assert "| memory: engine, in a training | 1.9 GiB | not known |" in told
    assert "nothing is known" in told
    assert planner.MEMORY not in told
    assert planner.MEMORY in planner.told(MODEL, [plan(1_000)])


@given(
    machines=st.integers(1, 300_000),
    more=st.integers(0, 300_000),
    changed=st.fixed_dictionaries(
        {},
        optional={
            "cores": st.integers(1, 64),
            "memory_gib": st.floats(1, 512),
            "cadence_hours": st.sampled_from((1, 3, 6, 12, 24)),
            "readings_per_hour": st.floats(0.1, 60),
            "runs_per_day": st.integers(1, 48),
            "days_per_run": st.integers(1, 30),
            "days_kept": st.integers(1, 3_000),
            "compressed": st.booleans(),
        },
    ),
)
def test_more_machines_never_cost_less(machines, more, changed):
    fewer, larger = needs(MODEL, plan(machines, **changed)), needs(MODEL, plan(machines + more, **changed))
    assert larger.troubles or not fewer.troubles
    for name in ("new_day", "training", "backfill", "written_a_day", "cost_of_runs", "cost_of_storage", "memory_of_training"):
        assert getattr(fewer, name) <= getattr(larger, name) * (1 + 1e-9), name
    for stage, seconds in fewer.core_seconds.items():
        assert seconds <= larger.core_seconds[stage] * (1 + 1e-9), stage


@given(limit=st.integers(0, 1_000))
def test_the_largest_fleet_that_holds_is_found(limit):
    assert planner.largest_that(lambda machines: machines <= limit, 1_000) == limit


@pytest.mark.parametrize(
    "row",
    [
        "engine start",
        "landing to raw",
        "raw to features",
        "labels",
        "models",
        "scores",
        "all of it once more",
        "new day",
        "memory of the engine",
        "files in the lake",
        "a new day",
    ],
)
def test_a_missing_row_is_named_with_the_command_that_makes_it(row):
    lacking = re.sub(rf"(?m)^\| {row}.*\n", "", SECTION.format(**LARGE))
    with pytest.raises(PlanError, match=rf"no row '{row} ...' for 1000 machines: `make bench MACHINES=1000` writes it"):
        model_of("# Measured\n" + SECTION.format(**SMALL) + lacking)


@pytest.mark.parametrize(
    ("times", "sizes", "what"),
    [
        ("# Measured\n" + SECTION.format(**SMALL), BYTES, "results.md needs fleets of two sizes.*make bench MACHINES=1000"),
        (TIMES.replace("2 cores, 20 GiB", "4 cores, 20 GiB", 1), BYTES, "measured on different machines"),
        (TIMES.replace("2 cores, 20 GiB", "a machine"), BYTES, "no line such as '2 cores, 23 GiB"),
        (TIMES.replace("| 15.0 s |", "| soon |"), BYTES, "100 machines, row 'engine start': 'soon' can't be read"),
        (TIMES, "# Bytes\n", "bytes.md has no fleet.*make bytes MACHINES=1000"),
        (TIMES, BYTES.replace("| staging |", "| stage |"), "bytes.md has no row 'staging' for 100 .*make bytes MACHINES=100`"),
    ],
)
def test_what_can_not_be_planned_from_is_said(times, sizes, what):
    with pytest.raises(PlanError, match=what):
        model_of(times, sizes)


def test_the_command_says_it_without_a_trace(tmp_path, capsys):
    assert planner.main(["--measured", str(tmp_path)]) == 1
    assert "results.md is not there: `make bench MACHINES=100`" in capsys.readouterr().err
    page = tmp_path / "page.md"
    page.write_text("# Cost\n")
    assert planner.main(["--write", str(page)]) == 1
    assert "the page has no place for the tables" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        planner.main(["--machines", "0"])
    assert "take a number above 0" in capsys.readouterr().err


def test_newer_results_have_rows_of_some_days_and_two_stages_more():
    section = SECTION.replace("scores, the range", "scores, the last 21 days").replace("file to scores", "file to worklist")
    section = section.replace(
        "| all of it",
        "| worklist, the last 21 days | {worklist} s | maintenance {worklist} |\n"
        "| monitoring, the last 21 days | {monitoring} s | realised_performance {monitoring} |\n| all of it",
    )
    section = section.replace("| 22.0 s | observations 5.0,", "| 20.0 s | maintenance 3.0, observations 5.0,")
    section = section.replace("| 20.0 s | observations 5.0,", "| 20.0 s | maintenance 3.0, observations 5.0,")
    newer = model_of(
        "# Measured\n"
        + section.format(**SMALL, worklist=2.1, monitoring=7)
        + section.format(**LARGE, worklist=2.1 + 18.9, monitoring=7)
    )
    assert newer.ranges["scores"].each == pytest.approx(6.16 / (900 * 21))
    assert newer.ranges["worklist"].each == pytest.approx(1e-3)
    assert newer.new_day["worklist"] == pytest.approx((3 - 0.1 + 3 - 1) / 2)
    assert newer.ranges["monitoring"] == Line(7, 0)
    assert needs(newer, plan(5_000)).by_stage["worklist"] == pytest.approx(2.45 + 5)


def test_growth_is_told_between_sizes_of_as_many_days_and_once(tmp_path):
    page = tmp_path / "results.md"
    page.write_text(TIMES)
    for _ in range(2):
        growth.write(page)
        # log10(120 / 48), and of a new day, whose seconds are the same at both sizes
        assert page.read_text().count("| landing to raw | 48.0 s | 0.40 | 120.0 s |") == 1
        assert page.read_text().count("| a new day, engine warm | 21.0 s | 0.00 | 21.0 s |") == 1
    assert (tmp_path / "growth.png").exists()
    assert len(lines.read_times(page.read_text())) == 2
    page.write_text(page.read_text().replace("100 machines x 400 days", "100 machines x 365 days"))
    growth.write(page)
    assert "Growth" not in page.read_text()


def test_what_the_planner_says_of_the_platform_holds():
    from pdm_assets.automation import plan as automation
    from pdm_assets.models.rules import RULE_FEATURES
    from pdm_assets.resources import lake
    from pdm_assets.schemas.raw import COMPONENTS

    assert planner.FEW_MACHINE_DAYS == lake.FEW_MACHINE_DAYS
    assert planner.MAX_DAYS_A_RUN == automation.MAX_DAYS_A_RUN
    # machine, time and window; a score and a label a component; what the rules look at
    assert 8 * (3 + 2 * len(COMPONENTS) + len(RULE_FEATURES)) == planner.TRAINING_ROW_BYTES
    assert "41 s to 26 s" in (ROOT / "docs" / "performance.md").read_text()
    assert "range frames: twice as fast" in (ROOT / "pdm_assets" / "transforms" / "features.py").read_text()


def test_the_measured_lakes_are_as_large_as_the_lines_say():
    """Bytes come of short histories, one new day at a time: the year's lakes of results.md were measured in another way."""
    model = lines.measured()
    for machines, days, size in model.lakes:
        assert model.lake(machines, days) == pytest.approx(size, rel=0.25), machines


def test_the_page_has_the_tables_of_the_measurements():
    page = (ROOT / "docs" / "cost.md").read_text()
    model = lines.measured()
    plans = [Plan(machines=n, cores=model.cores, memory_gib=float(model.memory_gib)) for n in planner.FLEETS]
    assert planner.put_into(page, planner.told(model, plans)) == page, "the measurements changed: run `make cost`"


def test_the_page_sets_the_lines_beside_the_largest_fleet_that_was_measured_otherwise():
    page, ranges = (ROOT / "docs" / "cost.md").read_text(), lines.measured().ranges
    section = (ROOT / "benchmarks" / "peers.md").read_text().split("\n## 8000 machines x 365 days")[1]
    (load, features) = re.search(r"\| this platform \| ([\d.]+) s \| ([\d.]+) s \|", section).groups()
    for what, stage, measured in (("landing to raw", "raw", load), ("features", "features", features)):
        assert f"\n| {what} | {ranges[stage].at(8000 * 365):.0f} s | {measured} s |\n" in page, f"{what}: correct the page"


def test_a_page_is_written_anew_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Cost\n\n{planner.BEGIN}\nof yesterday\n{planner.END}\n\nMore.\n")
    assert planner.main(["--machines", "1000", "--write", str(page)]) == 0
    text = page.read_text()
    assert text.startswith(f"# Cost\n\n{planner.BEGIN}\n\nMeasured on")
    assert text.endswith(f"{planner.END}\n\nMore.\n")
    assert "of yesterday" not in text
    assert "1,000 machines" in text


def test_sizes_and_times_are_shown_in_units_that_can_be_read():
    shown = [planner._size(n) for n in (MIB // 2, 2 * GIB, 3 * 1024 * GIB)], [planner._time(s) for s in (12.4, 1800, 36_000)]
    assert shown == (["0.5 MiB", "2.0 GiB", "3.0 TiB"], ["12 s", "30 min", "10.0 h"])


def test_a_plan_is_what_the_settings_default_to():
    from pdm_assets.settings import Settings

    fields = {field.name: field.default for field in dataclasses.fields(Plan)}
    assert fields["retrain_every_days"] == Settings().retrain_every_days
    assert fields["keep_days"] == Settings().keep_days
