"""The checks of monitoring, whatever days a run takes."""

import datetime as dt

from pdm_assets.schemas.features import FAILURE_MODEL, FEATURE_DRIFT, REALISED_PERFORMANCE
from pdm_assets_tests.builders import day
from pdm_assets_tests.plant import Plant, check

LAST = day("2015-03-10")
VALUES = {"string": "x", "bigint": 9, "int": 30, "double": 0.5, "boolean": True}


def bad_days(table, **known):
    """Rows of the five days up to the last, all of them bad."""
    given = {**known, "worse": "event recall"}
    values = [given.get(field.name, VALUES[field.dataType.simpleString()]) for field in table.columns]
    return [(*values, LAST - dt.timedelta(days=n)) for n in range(5)]


def test_a_check_stays_red_when_days_long_past_are_monitored_again(tmp_path, engine, spark):
    plant = Plant(tmp_path, engine)
    plant.lake.ensure(FAILURE_MODEL)  # no day has a model: what runs again has no rows
    for table, known in ((FEATURE_DRIFT, {"feature": "volt_mean_24h"}), (REALISED_PERFORMANCE, {"component": "comp1"})):
        rows = spark.createDataFrame(bad_days(table, **known), table.struct)
        plant.lake.replace_days(table, rows, LAST - dt.timedelta(days=4), LAST + dt.timedelta(days=1), {})
    result = plant.run("2015-01-15", tables="feature_drift realised_performance")
    assert result.success
    drift = check(result, "monitoring/feature_drift", "no_lasting_drift")
    holds = check(result, "monitoring/realised_performance", "performance_holds")
    assert not drift.passed
    assert not holds.passed
    assert "volt_mean_24h (PSI 0.50" in drift.description
    assert "comp1: event recall" in holds.description
    assert {its.metadata["day"].value for its in (drift, holds)} == {LAST.isoformat()}
