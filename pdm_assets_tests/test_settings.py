import datetime as dt
import re
from pathlib import Path

import pytest

from pdm_assets.settings import SettingError, Settings, table

ROOT = Path(__file__).parents[1]


def test_without_variables_the_defaults_hold():
    assert Settings.from_environ({"HOME": "/home/x"}) == Settings()


def test_each_setting_comes_from_its_variable_and_goes_back_to_it():
    given = {
        "PDM_DATA": "/plant/data",
        "PDM_FIRST_DAY": "2015-01-01",
        "PDM_LAST_DAY": "2015-12-31",
        "PDM_HORIZON_HOURS": "36",
        "PDM_MODEL_TYPE": "decision_tree",
        "PDM_COST_FALSE_VISIT": "0.5",
    }
    settings = Settings.from_environ(given)
    assert settings.data == Path("/plant/data")
    assert settings.first_day == dt.date(2015, 1, 1)
    assert settings.horizon_days == 2
    assert settings.model_type == "decision_tree"
    assert settings.cost_false_visit == 0.5
    assert Settings.from_environ(settings.to_environ()) == settings


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"PDM_DATE": "x"}, "no such setting: PDM_DATE"),
        ({"PDM_FIRST_DAY": "01/02/2015"}, "PDM_FIRST_DAY='01/02/2015'"),
        ({"PDM_CADENCE_HOURS": "5"}, "take 1, 3, 6, 12 or 24"),
        ({"PDM_TRAIN_DAYS": "0"}, "PDM_TRAIN_DAYS=0"),
        ({"PDM_TEST_DAYS": "2"}, "PDM_TEST_DAYS=2: take more than the 2 days of PDM_HORIZON_HOURS=48"),
        ({"PDM_CALIBRATION_DAYS": "7", "PDM_HORIZON_HOURS": "168"}, "PDM_CALIBRATION_DAYS=7: take more than the 7 days"),
        ({"PDM_MODEL_TYPE": "forest"}, "take one of random_forest"),
        ({"PDM_ENGINE": "polars"}, "take one of duckdb, spark"),
        ({"PDM_SPARK_REMOTE": "sc://host:15002"}, "PDM_SPARK_REMOTE is an address for the engine spark: set PDM_ENGINE=spark"),
        ({"PDM_CATALOG": "main", "PDM_SCHEMA": "pdm"}, "which Spark alone knows: set PDM_ENGINE=spark"),
        ({"PDM_ENGINE": "spark", "PDM_CATALOG": "main"}, "go together"),
        ({"PDM_MEMORY_MB": "100"}, "PDM_MEMORY_MB=100: take 256 or more"),
        ({"PDM_SPARK_MODE": "engine"}, "PDM_SPARK_MODE is gone: the default, PDM_ENGINE=duckdb, needs no Spark"),
        ({"PDM_SPARK_MEMORY_MB": "2048"}, "PDM_SPARK_MEMORY_MB is gone: set PDM_MEMORY_MB"),
        ({"PDM_SPARK_CORES": "2"}, "PDM_SPARK_CORES is gone: unset it"),
        ({"PDM_SPARK_IDLE_MINUTES": "5"}, "PDM_SPARK_IDLE_MINUTES is gone: unset it"),
        (
            {"PDM_COST_MISSED_FAILURE": "1500"},
            "PDM_COST_MISSED_FAILURE=1500.0 must be more than PDM_COST_PLANNED_REPAIR=2000.0",
        ),
        ({"PDM_COST_FALSE_VISIT": "0"}, "PDM_COST_FALSE_VISIT=0.0 more than 0"),
        ({"PDM_LEAST_LEAD_HOURS": "48"}, "take less than PDM_HORIZON_HOURS=48"),
        ({"PDM_MLFLOW_URI": "sqlite:///mlflow.db"}, "take http(s)://host:port"),
        ({"PDM_MLFLOW_URI": "http://host:port"}, "take http(s)://host:port"),
        ({"PDM_MLFLOW_NAME": "plant's"}, "take letters, digits"),
        ({"PDM_FIRST_DAY": "2015-02-01", "PDM_LAST_DAY": "2015-01-01"}, "is before"),
    ],
)
def test_what_can_not_be_used_is_refused_by_name(given, said):
    with pytest.raises(SettingError, match=re.escape(said)):
        Settings.from_environ(given)


@pytest.mark.parametrize(
    "address", ["http://me:s3cret@host", "https://s3cret@host/x", "http://host?token=s3cret", "me:s3cret@host"]
)
def test_a_password_in_an_address_is_refused_and_not_shown(address):
    with pytest.raises(SettingError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        Settings.from_environ({"PDM_MLFLOW_URI": address})
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "address", ["postgres://me:s3cret@host/db", "postgresql://me:s3cret@host", "postgresql://me:s3cret/x@host/db"]
)
def test_an_address_of_a_database_that_can_not_be_read_is_refused_and_not_shown(address):
    with pytest.raises(SettingError, match="PDM_DAGSTER_DB: take postgresql://") as refused:
        Settings.from_environ({"PDM_DAGSTER_DB": address})
    assert "s3cret" not in str(refused.value)


def test_an_address_of_a_database_is_taken_and_not_shown():
    settings = Settings.from_environ({"PDM_DAGSTER_DB": "postgresql://me:s3cret@host:5432/db?sslrootcert=/etc/ca.pem"})
    assert "s3cret" not in repr(settings)


def test_the_documented_settings_are_the_settings():
    assert table() in (ROOT / "docs" / "settings.md").read_text()


def test_the_tests_that_the_threat_model_relies_on_are_there():
    defined = "".join(path.read_text() for path in (ROOT / "pdm_assets_tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "security.md").read_text()))
    assert len(named) > 10
    for test in named:
        assert f"def {test}(" in defined, test


def test_what_the_readme_names_is_there():
    text = (ROOT / "README.md").read_text()
    for path in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"`(pdm_assets/[\w./]+)`", text):
        assert (ROOT / path).exists(), path
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"`?make ([a-z]+)", text):
        assert target in targets, target
    variables = set(re.findall(r"`PDM_\w+`", table()))
    assert set(re.findall(r"`PDM_\w+`", text)) <= variables
