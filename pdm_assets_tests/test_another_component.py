"""Another component is a line in schemas/raw.py, says README: a platform with it takes comp5 from file to worklist."""

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pyspark.sql import functions as F

from pdm_assets.models.promotion import Condition, Verdict
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.schemas.features import COMPONENT_RISK, FEATURE_DRIFT, OBSERVATIONS, REALISED_PERFORMANCE, WORKLIST
from pdm_assets_tests.models.fleet import CUTOFF, DAYS, FIRST_DAY, MACHINES, fleet_columns, observations_of, trained_tree
from pdm_assets_tests.plant import Plant

ROOT = Path(__file__).parents[1]
DECLARED = '    "comp4": OwnSigns("vibration", ("error5",)),\n'
ONE_LINE_MORE = '    "comp5": OwnSigns(),\n'
LAST = CUTOFF + dt.timedelta(days=2)
DOWNSTREAM = "failure_model component_risk worklist/maintenance realised_performance feature_drift"


@pytest.mark.slow
def test_another_component_is_one_line_and_goes_from_its_files_to_the_worklist(tmp_path, engine, spark):
    for package in ("pdm_assets", "pdm_assets_tests"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    declared = tmp_path / "pdm_assets" / "schemas" / "raw.py"
    text = declared.read_text()
    assert text.count(DECLARED) == 1
    declared.write_text(text.replace(DECLARED, DECLARED + ONE_LINE_MORE))

    done = subprocess.run(
        [sys.executable, "-m", "pdm_assets_tests.test_another_component", tmp_path / "plant", engine.model_dump_json()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["failing"] == ["2015-01-01 06:00", "2015-01-01 18:00", "2015-01-02 06:00", "2015-01-02 18:00"]
    assert found["days_since_replacement"] == 1.0
    assert found["scores"] == MACHINES * 3 * 2
    assert found["monitored"] == ["realised_performance", "feature_drift"]
    # it fails where error5 is seen, and nothing said so: the model found out, the rules can't
    assert found["recall"] == 1.0
    assert found["alarms_by_rule"] == {"own error": 0, "own channel shifted": 0, "own error and channel": 0}
    assert "error5" in found["reasons"]


def _from_files_to_worklist(root: Path, engine: SparkEngine) -> dict:
    """What became of comp5 in a plant that has it."""
    plant, found = Plant(root, engine), {}
    spark = engine.spark_session
    plant.land_fleet(1, 2)
    plant.land_telemetry("2015-01-01", "2015-01-02", "2015-01-03", "2015-01-05")
    plant.land("errors", "errors.csv", "2015-01-02 05:00:00,1,error1")
    plant.land("maintenance", "maint.csv", "2015-01-01 06:00:00,1,comp5")
    plant.land("failures", "failures.csv", "2015-01-03 06:00:00,2,comp5")
    landed = plant.run("2015-01-01", "2015-01-05")
    assert landed.success
    assert all(evaluation.passed for evaluation in landed.get_asset_check_evaluations())
    labels = plant.rows(
        "labels/component_failures", "2015-01-01", "2015-01-05", "observed_at", "component", "fails_within_horizon"
    )
    found["failing"] = [f"{at:%Y-%m-%d %H:%M}" for at, component, fails in labels if fails and component == "comp5"]
    columns = ("machine_id", "observed_at", "comp5_days_since_replacement")
    found["days_since_replacement"] = plant.rows("features/observations", "2015-01-02", "2015-01-02", *columns)[0][2]

    rows = observations_of(spark, fleet_columns()).withColumn("date", F.to_date("observed_at"))
    plant.lake.replace_days(OBSERVATIONS, rows, FIRST_DAY, FIRST_DAY + dt.timedelta(days=DAYS), {})
    with engine.fitter() as fitter:
        trained = trained_tree(spark, "tree", fitter, root / "pipeline")
    ruled = trained.card.events["comp5"].rules
    found["alarms_by_rule"] = {name: its.true_episodes + its.false_episodes for name, its in ruled.items()}
    found["recall"] = trained.card.metrics["test"]["comp5"].observation_recall
    plant.store.save(trained, {}, "a-run")
    plant.store.decide("tree", Verdict(True, (Condition("good enough", True, "for a test"),)), CUTOFF, "the test")
    plant.land_telemetry(LAST.isoformat())  # what became of scores is known up to the last day that was heard of
    assert plant.run(LAST.isoformat(), tables="machines telemetry").success
    assert plant.run(CUTOFF.isoformat(), LAST.isoformat(), tables=DOWNSTREAM).success
    end = LAST + dt.timedelta(days=1)
    of_comp5 = {
        table.name: [
            row for row in plant.lake.rows(table, CUTOFF, end) if "comp5" in (row.get("component"), row.get("feature"))
        ]
        for table in (COMPONENT_RISK, WORKLIST, REALISED_PERFORMANCE, FEATURE_DRIFT)
    }
    found["scores"] = len(of_comp5["component_risk"])
    found["monitored"] = [name for name in ("realised_performance", "feature_drift") if of_comp5[name]]
    found["reasons"] = "; ".join(line["reasons"] for line in of_comp5["maintenance"])
    return found


if __name__ == "__main__":
    joined = SparkEngine.model_validate_json(sys.argv[2])
    try:
        print(json.dumps(_from_files_to_worklist(Path(sys.argv[1]), joined)))
    finally:
        joined.close()
