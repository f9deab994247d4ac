"""The process that fits: what it makes is what Spark makes of it, and what it says when it is lost."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pdm_assets.engine.java import java_home
from pdm_assets.models import fitting
from pdm_assets.models.fitting import FitFailed, FitProcess, FitProcessError, FitSpec, NoJava
from pdm_assets.models.pipeline import MODEL_TYPES
from pdm_assets.models.served import SavedPipeline, numpy_columns
from pdm_assets.models.table import LABELS, WEIGHT
from pdm_assets.resources.faults import fault_in
from pdm_assets.schemas.features import CATEGORICAL_FEATURES, NUMERIC_FEATURES
from pdm_assets_tests.models.fleet import fleet_columns, observations_of

FEATURES = (*NUMERIC_FEATURES, *CATEGORICAL_FEATURES)
PARAMETERS = {
    "random_forest": {"numTrees": 7, "maxDepth": 5},
    "decision_tree": {"maxDepth": 5},
    "gradient_boosted_trees": {"maxIter": 4, "maxDepth": 3},
    "logistic_regression": {"maxIter": 20, "regParam": 0.01, "elasticNetParam": 0.5},  # some coefficients become 0
}
NULLED = ("volt_mean_12h", "rotate_std_24h", "comp2_days_since_replacement")


def spec(model_type="decision_tree", **parameters):
    return FitSpec(("comp1", "comp2"), FEATURES, model_type, {**PARAMETERS[model_type], **parameters}, seed=3)


@pytest.fixture(scope="module")
def rows(spark):
    """The toy fleet with nulls, where comp1 fails after an error and comp2 by voltage and machine model."""
    columns = fleet_columns()
    for number, name in enumerate(NULLED):
        columns[name] = [None if row % 7 == number else value for row, value in enumerate(columns[name])]
    table = observations_of(spark, columns).toArrow()
    volt, model2 = np.array(columns["volt_mean_24h"]), np.array(columns["machine_model"]) == "model2"
    fails = {
        "comp1": np.array(columns["error1_count_24h"]) > 0,
        "comp2": volt > np.where(model2, 95, 110),
        "comp3": volt > 1e9,
        "comp4": volt > 1e9,
    }
    for label, fails_ in zip(LABELS, fails.values(), strict=True):
        table = table.append_column(label, pa.array(fails_.astype(float)))
    return table.append_column(WEIGHT, pa.array(np.ones(table.num_rows)))


@pytest.fixture(scope="module")
def pipelines(rows, fitter, tmp_path_factory):
    """A pipeline of each type, fitted one after another by one process."""
    folder = tmp_path_factory.mktemp("pipelines")
    return {kind: fitter.fit(rows, spec(kind), folder / kind).folder for kind in MODEL_TYPES}


OF_SPARK = """
import sys
from pathlib import Path
from pdm_assets.models.fit_process import session
from pyspark.ml import PipelineModel
from pyspark.ml.functions import vector_to_array
from pyspark.sql import functions as F
scratch, rows, *folders = map(Path, sys.argv[1:])
spark = session(scratch, 1024)
frame = spark.read.parquet(str(rows)).coalesce(1)
for folder in folders:
    found = PipelineModel.load(str(folder)).transform(frame)
    risks = [F.element_at(vector_to_array(f"probability_{c}"), 2).alias(c) for c in ("comp1", "comp2")]
    found.select("n", *risks).write.parquet(str(scratch / folder.name))
spark.stop()
"""


def edges(pipelines, rows):
    """Rows that stand exactly on the thresholds of splits, and just above, of machines of every kind."""
    first = {name: rows[name][0].as_py() for name in FEATURES}
    made = [{**first, "machine_model": model} for model in ("model1", "model2", "a model that training never saw")]
    for folder in pipelines.values():
        for stage in SavedPipeline(folder)._stages[-2:]:
            trees = next((c.cell_contents for c in stage.__closure__ or () if hasattr(c.cell_contents, "threshold")), None)
            for feature, threshold in zip(trees.feature, trees.threshold, strict=True) if trees else ():
                name = FEATURES[feature] if feature < len(NUMERIC_FEATURES) else ""
                if np.isfinite(threshold) and "mean" in name:
                    made += [{**first, name: float(threshold)}, {**first, name: float(np.nextafter(threshold, np.inf))}]
    kinds = {name: rows.schema.field(name).type for name in FEATURES}
    return pa.Table.from_pylist(made, pa.schema(list(kinds.items())))


def test_numpy_says_of_every_type_what_spark_says_of_it(pipelines, rows, tmp_path):
    asked = pa.concat_tables([rows.select(FEATURES), edges(pipelines, rows)])
    assert asked.num_rows > rows.num_rows + 20
    pq.write_table(asked.append_column("n", pa.array(range(asked.num_rows))), tmp_path / "rows.parquet")
    environ = {name: value for name, value in os.environ.items() if name not in fitting.OF_A_SPARK_SESSION}
    command = [sys.executable, "-c", OF_SPARK, str(tmp_path), str(tmp_path / "rows.parquet"), *map(str, pipelines.values())]
    done = subprocess.run(command, env={**environ, "JAVA_HOME": str(java_home())}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for kind, folder in pipelines.items():
        by_spark = pq.read_table(tmp_path / kind).sort_by("n")
        ours = SavedPipeline(folder).scores(numpy_columns(asked), ["comp1", "comp2"])
        for component, found in ours.items():
            theirs = by_spark[component].to_numpy()
            assert len(np.unique(theirs)) > 1
            # trees differ by the last digit of a mean, the others by logarithms of another library
            close = 1e-15 if kind in ("random_forest", "decision_tree") else 1e-12
            assert np.abs(found - theirs).max() < close, (kind, component)


def test_an_empty_and_a_single_row_are_scored(pipelines, rows):
    for folder in pipelines.values():
        saved = SavedPipeline(folder)
        whole = saved.scores(numpy_columns(rows), ["comp1"])["comp1"]
        assert saved.scores(numpy_columns(rows.slice(0, 0)), ["comp1"])["comp1"].shape == (0,)
        one = saved.scores(numpy_columns(rows.slice(700, 1)), ["comp1"])["comp1"]
        assert one[0] == pytest.approx(whole[700], rel=1e-14)


@pytest.mark.slow  # another JVM
def test_the_same_rows_make_the_same_pipeline_in_another_process(pipelines, rows, tmp_path):
    with FitProcess() as other:
        again = other.fit(rows, spec("random_forest"), tmp_path / "again").folder
    both = (again, pipelines["random_forest"])
    found, expected = (SavedPipeline(folder).scores(numpy_columns(rows), ["comp1", "comp2"]) for folder in both)
    assert all(np.array_equal(found[c], expected[c]) for c in expected)


@pytest.mark.slow
def test_a_process_serves_several_fits_and_leaves_nothing(rows, tmp_path):
    with FitProcess() as process:
        first = process.fit(rows, spec(), tmp_path / "one")
        pid, scratch = process.pid, process._scratch
        process.fit(rows, spec(), tmp_path / "two")
        assert process.pid == pid
        jvm = jvms(process)
        assert len(jvm) == 1
        listening = [c.laddr.ip for c in jvm[0].net_connections() if c.status == "LISTEN"]
        assert set(listening) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert not psutil.pid_exists(pid)
    assert psutil.wait_procs(jvm, timeout=10)[1] == []
    assert not scratch.exists()
    assert first.seconds > 0
    assert max(first.importances["comp1"], key=first.importances["comp1"].__getitem__) == "error1_count_24h"


def killed_in_the_middle(process, victim):
    """Kill the child, or its JVM, a moment after it has been asked."""

    def kill():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = victim(process)
            if found is not None:
                time.sleep(0.3)
                found.kill()
                return
            time.sleep(0.02)

    threading.Thread(target=kill, daemon=True).start()


def the_child(process):
    return psutil.Process(process.pid) if process.pid else None


def the_jvm(process):
    found = jvms(process)
    return found[0] if found else None


def jvms(process):
    """The JVM of a fit process, and not the one for a moment that makes its command line."""
    children = psutil.Process(process.pid).children(recursive=True) if process.pid else []
    found = []
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            command = child.cmdline()
            if "org.apache.spark.deploy.SparkSubmit" in command and "org.apache.spark.launcher.Main" not in command:
                found.append(child)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("victim", [the_child, the_jvm])
def test_a_process_that_is_killed_is_an_error_that_is_retried_and_the_next_fit_has_a_new_one(rows, tmp_path, victim):
    with FitProcess() as process:
        killed_in_the_middle(process, victim)
        with pytest.raises(FitProcessError, match="the process that fits the model ended with") as lost:
            process.fit(rows, spec("random_forest", numTrees=300), tmp_path / "lost")
        fault = fault_in(lost.value)
        assert fault is not None
        assert fault.passes
        assert process.pid is None
        assert process.fit(rows, spec(), tmp_path / "next").folder.is_dir()


def test_a_process_that_hangs_is_killed_and_named(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "FIT_MAY_TAKE_S", 0.2)
    process = FitProcess()
    with pytest.raises(FitProcessError, match="has not ended after 0 s, and was killed"):
        process.fit(rows, spec(), tmp_path / "never")
    assert process.pid is None


def test_a_process_without_memory_says_which_setting_to_raise(rows, tmp_path):
    many = pa.concat_tables([rows] * 60)
    with FitProcess(memory_mb=1) as process, pytest.raises(FitProcessError) as lost:  # Spark asks for 450 MB at least
        process.fit(many, spec("random_forest"), tmp_path / "never")
    assert "the process that fits the model ended with" in str(lost.value)
    assert "heap" in str(lost.value)


def test_an_out_of_memory_error_in_the_log_is_named(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(fitting, "MODULE", "pdm_assets_tests.models.out_of_memory")
    with FitProcess(memory_mb=700) as process, pytest.raises(FitProcessError) as lost:
        process.fit(rows, spec(), tmp_path / "never")
    assert "ran out of memory (700 MiB). Set PDM_MEMORY_MB higher" in str(lost.value)


def test_what_mllib_refuses_is_no_fault_of_the_machine(rows, tmp_path, fitter):
    with pytest.raises(FitFailed, match="maxDepth") as refused:
        fitter.fit(rows, spec(maxDepth=99), tmp_path / "never")
    assert fault_in(refused.value) is None
    assert fitter.fit(rows, spec(), tmp_path / "next").folder.is_dir()  # it goes on


def test_without_java_it_says_what_to_install(rows, tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    said = r"no model can be fitted: no Java found in JAVA_HOME.*openjdk-17-jre-headless.*All else works"
    with pytest.raises(NoJava, match=said):
        FitProcess().fit(rows, spec(), tmp_path / "never")


PARENT = """
import time
from pdm_assets.models.fitting import FitProcess
process = FitProcess()
process._start()
print(process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_it_ends_with_a_parent_that_is_killed():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        deadline = time.monotonic() + 60
        while not (jvm := child.children(recursive=True)) and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(parent.pid, signal.SIGKILL)
    assert jvm
    _, alive = psutil.wait_procs([child, *jvm], timeout=30)
    assert not alive


def test_folders_that_are_no_pipeline_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is no pipeline that can be read"):
        SavedPipeline(Path(tmp_path))
