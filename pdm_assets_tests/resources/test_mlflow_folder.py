"""A folder in MLflow's format scores as the platform does: loaded, behind a real scoring server, in SQL and in Spark."""

import contextlib
import dataclasses
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
import requests
from click.testing import CliRunner
from pyspark.sql import functions as F

from pdm_assets import cli
from pdm_assets.engine.spark import connect
from pdm_assets.models import served
from pdm_assets.models.calibration import Platt
from pdm_assets.models.fitting import FitSpec
from pdm_assets.models.pipeline import MODEL_TYPES
from pdm_assets.models.scoring import score
from pdm_assets.models.served import SavedPipeline
from pdm_assets.models.table import WEIGHT, label_of
from pdm_assets.resources import mlflow_folder, model_folder
from pdm_assets.resources.model_folder import ModelFolderError
from pdm_assets.schemas.features import CATEGORICAL_FEATURES, COMPONENT_RISK, NUMERIC_FEATURES, READINGS_COUNT
from pdm_assets.schemas.raw import COMPONENTS
from pdm_assets_tests.builders import day, utc
from pdm_assets_tests.models.fleet import fleet_columns, observations_of
from pdm_assets_tests.plant import Plant
from pdm_assets_tests.ports import free_ports
from pdm_assets_tests.spark_server import connect_server

DOCS = Path(__file__).parents[2] / "docs" / "serving.md"
PARAMETERS = {
    "random_forest": {"numTrees": 6, "maxDepth": 4},
    "decision_tree": {"maxDepth": 4},
    "gradient_boosted_trees": {"maxIter": 3, "maxDepth": 3},
    "logistic_regression": {"maxIter": 20, "regParam": 0.01, "elasticNetParam": 0.5},  # some coefficients become 0
}
CLOSE = 1e-12  # sums of other orders, and logarithms of another library
FLAGS = [f"{component}_never_replaced" for component in COMPONENTS]
NULLED = ("volt_mean_12h", "rotate_std_24h", "comp2_days_since_replacement")
FEW_READINGS = 17  # 18 are half of the longest look-back


def hard_columns():
    """The toy fleet with nulls, a machine of an unknown model, and observations of few readings."""
    columns = fleet_columns()
    for number, name in enumerate(NULLED):
        columns[name] = [None if row % 7 == number else value for row, value in enumerate(columns[name])]
    columns["machine_model"] = ["model9" if row % 11 == 0 else its for row, its in enumerate(columns["machine_model"])]
    columns[READINGS_COUNT] = [FEW_READINGS if row % 13 == 0 else 18 for row in range(len(columns[READINGS_COUNT]))]
    return columns


@pytest.fixture(scope="module")
def observations(spark):
    return observations_of(spark, hard_columns())


@pytest.fixture(scope="module")
def learnt_from(spark):
    """The toy fleet, where comp1 fails after an error, comp2 by voltage and machine model, comp3 at random."""
    fails = {
        "comp1": F.col("error1_count_24h") > 0,
        "comp2": F.col("volt_mean_12h") > F.when(F.col("machine_model") == "model2", 95).otherwise(110),
        "comp3": F.pmod(F.xxhash64("machine_id", "observed_at"), F.lit(5)) == 0,
    }
    labels = {label_of(component): label.cast("double") for component, label in fails.items()}
    return observations_of(spark, fleet_columns()).withColumns({**labels, WEIGHT: F.lit(1.0)}).toArrow()


def sealed(root, learnt_from, tree, model_type, fitter):
    """A sealed model of a type: comp1 and comp2 are calibrated, comp3 is not, comp4 could not be learnt."""
    folder = root / model_type
    features = (*NUMERIC_FEATURES, *CATEGORICAL_FEATURES)
    spec = FitSpec(("comp1", "comp2", "comp3"), features, model_type, PARAMETERS[model_type], seed=7)
    fitter.fit(learnt_from, spec, folder / "pipeline")
    card = dataclasses.replace(
        tree.card,
        version=model_type,
        model_type=model_type,
        calibration={"comp1": Platt(0.8, -0.3), "comp2": Platt(1.3, 0.2)},
        constant_probabilities={"comp4": 0.0125},
        thresholds={"comp1": 0.3, "comp2": 0.4, "comp3": 0.2, "comp4": 0.01},
    )
    (folder / "card.json").write_text(card.to_json())
    model_folder.seal(folder)
    return folder, card


@pytest.fixture(scope="module")
def made(tmp_path_factory, learnt_from, tree, fitter):
    """By type, a sealed model, its card, and its folder in MLflow's format."""

    @functools.cache
    def of_type(model_type):
        root = tmp_path_factory.mktemp(model_type)
        folder, card = sealed(root, learnt_from, tree, model_type, fitter)
        mlflow_folder.write(folder, root / "exported")
        return folder, card, root / "exported"

    return of_type


@pytest.fixture(scope="module", params=MODEL_TYPES)
def model(request, made):
    return made(request.param)


@pytest.fixture(scope="module")
def a_tree(made):
    """For tests that any type would do for."""
    return made("decision_tree")


def risks_of(observations, answers):
    """By machine, time and component, what was answered on observations, without those that were not scored."""
    found = {}
    for row, answer in zip(observations, answers, strict=True):
        if answer["status"] == "scored":
            for component in COMPONENTS:
                its = [answer[f"{component}_{name}"] for name in ("probability", "threshold", "is_alert")]
                found[row["machine_id"], row["observed_at"], component] = (*its, answer["model_version"])
    return found


def of_platform(observations, folder, card):
    rows = score(observations, SavedPipeline(folder / "pipeline"), card).collect()
    return {
        (r["machine_id"], r["observed_at"], r["component"]): (
            r["probability"],
            r["threshold"],
            r["is_alert"],
            r["model_version"],
        )
        for r in rows
    }


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    differences = [abs(found[key][0] - expected[key][0]) for key in expected]
    assert max(differences) <= CLOSE
    assert {key: its[1:] for key, its in found.items()} == {key: its[1:] for key, its in expected.items()}


def answers_of(exported, rows):
    loaded = mlflow.pyfunc.load_model(str(exported))
    return loaded.predict(rows).to_dict(orient="records")


def test_every_type_of_model_scores_as_on_the_platform(model, observations):
    folder, card, exported = model
    rows = observations.toPandas()
    collected = observations.collect()
    answers = answers_of(exported, rows)
    expected = of_platform(observations, folder, card)
    assert 0 < len(expected) < len(rows) * len(COMPONENTS)  # some have too few readings
    assert len({its[0] for its in expected.values()}) > 10  # it is not one leaf for all
    assert {its[2] for its in expected.values()} == {True, False}
    assert_same(risks_of(collected, answers), expected)


def test_an_observation_on_the_very_threshold_of_a_split_goes_the_same_way(spark, model):
    folder, card, exported = model
    if card.model_type == "logistic_regression":
        splits = []
    else:
        trees = [stage for stage in (folder / "pipeline" / "stages").iterdir() if "Classifier" in stage.name]
        nodes = [row.get("nodeData", row) for stage in trees for row in served._rows(stage / "data")]
        splits = [node["split"] for node in nodes if node["leftChild"] >= 0]
        assert any(split["numCategories"] == 2 for split in splits)  # trees split by the machine's model too
    names = list(NUMERIC_FEATURES)
    at = [(names[s["featureIndex"]], s["leftCategoriesOrThreshold"][0]) for s in splits if s["numCategories"] == -1]
    columns = {name: values[:1] * (len(at) + 1) for name, values in fleet_columns().items()}
    columns["machine_id"] = list(range(len(at) + 1))
    for row, (name, threshold) in enumerate(at):
        if "count" not in name and name not in FLAGS and name != "age_years":  # those are whole numbers
            columns[name] = [*columns[name][:row], threshold, *columns[name][row + 1 :]]
    edges = observations_of(spark, columns)
    assert_same(risks_of(edges.collect(), answers_of(exported, edges.toPandas())), of_platform(edges, folder, card))


def test_what_has_too_few_readings_is_answered_but_not_scored(a_tree, observations):
    _, _, exported = a_tree
    few = observations.filter(F.col(READINGS_COUNT) == FEW_READINGS).limit(2).toPandas()
    for answer in answers_of(exported, few):
        assert answer["status"] == "not scored: fewer than 18 readings (readings_36h)"
        assert [answer[f"{component}_probability"] for component in COMPONENTS] == [None] * 4
        assert not any(answer[f"{component}_is_alert"] for component in COMPONENTS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.drop(columns="volt_mean_24h"), r"Model is missing inputs \['volt_mean_24h'\]"),
        (lambda rows: rows.astype({"age_years": "float64"}), "age_years"),
        (lambda rows: rows.assign(comp1_never_replaced=[None, True, True]), r"comp1_never_replaced is null in 1 .* at \[0\]"),
    ],
)
def test_what_can_not_be_scored_is_refused_with_the_name_of_its_column(a_tree, observations, change, said):
    rows = observations.filter(F.col(READINGS_COUNT) == 18).limit(3).toPandas()
    with pytest.raises(mlflow.MlflowException, match=said) as refused:
        answers_of(a_tree[2], change(rows))
    assert refused.value.get_http_status_code() == 400


def test_the_folder_holds_the_sealed_model_exact_pins_an_example_and_nothing_pickled(a_tree):
    folder, card, exported = a_tree
    model_folder.check(exported / "data" / "decision_tree")
    assert (exported / "data" / "decision_tree" / "SHA256SUMS").read_bytes() == (folder / "SHA256SUMS").read_bytes()
    pins = (exported / "requirements.txt").read_text().splitlines()
    assert [pin.split("==")[0] for pin in pins] == ["mlflow-skinny", "numpy", "pandas", "pyarrow"]
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", pin) for pin in pins)
    for name in ("conda.yaml", "python_env.yaml", "serving_input_example.json"):
        assert (exported / name).is_file()
    suffixes = {path.suffix for path in exported.rglob("*") if path.is_file()}
    assert suffixes <= {"", ".json", ".yaml", ".txt", ".py", ".sql", ".parquet", ".crc"}
    code = exported / "code"
    assert [path.read_text() for path in code.iterdir()] == [Path(served.__file__).read_text()]
    loaded = mlflow.pyfunc.load_model(str(exported))
    assert loaded.metadata.metadata["model_version"] == card.version
    (answer,) = loaded.predict(loaded.input_example).to_dict(orient="records")
    assert answer["status"] == "scored"


def test_a_model_that_is_not_as_it_was_sealed_is_neither_exported_nor_loaded(a_tree, tmp_path):
    folder, _, exported = a_tree
    damaged = Path(shutil.copytree(folder, tmp_path / "damaged"))
    (damaged / "card.json").write_text((damaged / "card.json").read_text().replace("0.0125", "0.9999"))
    with pytest.raises(ModelFolderError, match=r"card.json is not what was written"):
        mlflow_folder.write(damaged, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged"]

    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    shutil.copy(damaged / "card.json", copy / "data" / "decision_tree" / "card.json")
    with pytest.raises(Exception, match=r"card.json is not what was exported: its checksum differs"):
        mlflow.pyfunc.load_model(str(copy))


def test_a_stage_that_can_not_be_evaluated_is_refused_when_the_folder_is_loaded(a_tree, tmp_path):
    folder = Path(shutil.copytree(a_tree[0], tmp_path / "other"))
    (metadata,) = (folder / "pipeline" / "stages").glob("1_StringIndexer_*/metadata/part-*")
    text = metadata.read_text()
    for old, new, said in (
        ('"handleInvalid":"keep"', '"handleInvalid":"skip"', "has handleInvalid=skip; only keep can be served"),
        ("StringIndexerModel", "BucketizerModel", "is a BucketizerModel; only ImputerModel, "),
    ):
        assert old in text
        metadata.write_text(text.replace(old, new))
        model_folder.seal(folder)
        with pytest.raises(served.ServedModelError, match=said):
            served.ServedModel(folder, READINGS_COUNT, 18)


def test_the_command_exports_whole_refuses_a_target_that_is_there_and_says_what_is_missing(
    a_tree, tree, engine, tmp_path, monkeypatch
):
    plant = Plant(tmp_path / "plant", engine)
    plant.store.save(tree, {}, "a-run")
    monkeypatch.setattr(cli, "_store", lambda: plant.store)
    target = tmp_path / "champion"

    def export():
        return CliRunner().invoke(cli.main, ["models", "export", "tree", str(target), "--format", "mlflow"])

    with monkeypatch.context() as without:
        without.setitem(sys.modules, "mlflow", None)
        missing = export()
    assert missing.exit_code == 1
    assert "uv pip install -e '.[mlflow]'" in missing.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plant"]

    done = export()
    assert done.exit_code == 0
    assert re.fullmatch(rf"{target}: tree, [\d,]+ bytes\n", done.output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["champion", "plant"]
    mlmodel = (target / "MLmodel").read_bytes()
    again = export()
    assert again.exit_code == 1
    assert "champion is there already: name a new folder, or remove it first" in again.output
    assert (target / "MLmodel").read_bytes() == mlmodel


def test_a_registered_folder_scores_under_its_name(a_tree, tmp_path, observations, monkeypatch):
    """As the docs register it, on a registry of one file."""
    _, _, exported = a_tree
    rows = observations.limit(3).toPandas()
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    try:
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        version = mlflow.register_model(str(exported), "failure_model")
        loaded = mlflow.pyfunc.load_model(f"models:/failure_model/{version.version}")
        assert loaded.predict(rows).equals(mlflow.pyfunc.load_model(str(exported)).predict(rows))
    finally:
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(), re.DOTALL)


def test_the_scored_table_is_read_from_sql_as_the_docs_say(spark, engine, tmp_path):
    plant = Plant(tmp_path / "plant", engine)
    at = utc("2026-11-20 06:00")
    rows = [
        (machine, at, component, probability, 0.5, probability >= 0.5, "v", at, 3, day("2026-11-20"))
        for machine, component, probability in ((1, "comp1", 0.9), (1, "comp2", 0.1), (2, "comp1", 0.6))
    ]
    scores = spark.createDataFrame(rows, COMPONENT_RISK.struct)
    plant.lake.replace_days(COMPONENT_RISK, scores, day("2026-11-20"), day("2026-11-21"), {})
    local = next(block for block in blocks("python") if "duckdb" in block)
    code = local.replace("data/lake/scores/component_risk", f"{plant.lake.root}/scores/component_risk")
    assert code != local
    found: dict = {}
    exec(code, found)
    assert found["alerts"] == [(1, "comp1", 0.9), (2, "comp1", 0.6)]


def alone(folder):
    """The environment of a process that has neither this platform nor Dagster: what a server elsewhere would have."""
    folder.mkdir(exist_ok=True)
    of_spark = {name for name in os.environ if name.startswith("SPARK_")}  # where this session's server is
    environ = {name: value for name, value in os.environ.items() if name not in of_spark}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # as of an activated venv: MLflow starts uvicorn by its name
    return {**environ, "PATH": path, "PYTHONPATH": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true"}


@pytest.fixture
def server(a_tree, tmp_path):
    """The scoring server of MLflow on the exported folder, in a process that can import neither us nor Spark nor Dagster."""
    (port,) = free_ports(1)
    environ = alone(tmp_path / "alone")
    blocked = "import sys\nsys.modules.update(dict.fromkeys(['pdm_assets', 'pyspark', 'dagster']))\n"
    (tmp_path / "alone" / "sitecustomize.py").write_text(blocked)
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(a_tree[2]), "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=log, stderr=log, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(1800):
            assert process.poll() is None, (tmp_path / "log").read_text()
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"{address}/ping", timeout=30).ok:
                    break
            time.sleep(0.1)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_a_scoring_server_answers_row_by_row_and_the_exported_query_makes_the_scored_table_of_it(
    server, a_tree, observations, tmp_path
):
    folder, card, exported = a_tree
    some = observations.filter(F.col("machine_id") == 0)
    expected = of_platform(some, folder, card)

    def ask(body):
        return requests.post(f"{server}/invocations", json=body, timeout=60)

    assert requests.get(f"{server}/ping", timeout=30).status_code == 200
    example = json.loads((exported / "serving_input_example.json").read_text())
    assert ask(example).json()["predictions"][0]["model_version"] == "decision_tree"
    wanted = example["dataframe_split"]["columns"]
    rows = some.collect()
    data = [[row[name] for name in wanted] for row in rows]
    answers = ask({"dataframe_split": {"columns": wanted, "data": data}})
    assert answers.status_code == 200
    assert_same(risks_of(rows, answers.json()["predictions"]), expected)

    missing = ask({"dataframe_split": {"columns": wanted[1:], "data": [row[1:] for row in data]}})
    assert missing.status_code == 400
    assert f"Model is missing inputs ['{wanted[0]}']" in missing.json()["message"]
    age = wanted.index("age_years")
    unknown = ask({"dataframe_split": {"columns": wanted, "data": [[*data[0][:age], None, *data[0][age + 1 :]]]}})
    assert unknown.status_code == 400
    assert "age_years" in unknown.json()["message"]

    # The query for Databricks, with a function of the same name that asks this server.
    query = (exported / "score.sql").read_text()
    (kind,) = re.findall(r"returnType => '(.*)'", query)

    def ai_query(endpoint, request, returnType):  # noqa: N803 - the name of Databricks
        assert endpoint == "pdm-failure-model"
        answer = requests.post(f"{server}/invocations", json={"dataframe_records": [request.asDict()]}, timeout=60)
        return answer.json()["predictions"][0]

    few = some.limit(40).withColumn("date", F.lit(day("2026-11-20"))).toArrow()
    with connect_server(tmp_path / "sql") as elsewhere:
        session = connect(elsewhere.settings["PDM_SPARK_REMOTE"])
        answered = session.sql(f"SELECT CAST(NULL AS {kind}) AS answer").schema["answer"].dataType
        session.udf.register("ai_query", ai_query, answered)
        session.createDataFrame(few).createOrReplaceTempView("few_observations")
        found = session.sql(query.replace("main.pdm.features_observations", "few_observations")).collect()
        session.stop()
    assert list(found[0].asDict()) == [f.name for f in COMPONENT_RISK.columns[:7]]  # up to the version
    by_key = {(r["machine_id"], r["observed_at"], r["component"]): tuple(r[3:]) for r in found}
    assert 0 < len(by_key) == len(found)
    assert_same(by_key, {key: expected[key] for key in by_key})


OF_ANY_SESSION = """
import sys
sys.modules.update(dict.fromkeys(['pdm_assets', 'dagster']))  # not installed elsewhere
import mlflow
from pyspark.sql import SparkSession

exported, observations, out = sys.argv[1:]
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
risk = mlflow.pyfunc.spark_udf(spark, exported)
rows = spark.read.parquet(observations).select("machine_id", "observed_at", risk().alias("risk"))
rows.select("machine_id", "observed_at", "risk.*").write.parquet(out)
"""


@pytest.mark.long
def test_a_spark_session_that_knows_nothing_of_the_platform_scores_by_the_folder(a_tree, observations, spark, tmp_path):
    folder, card, exported = a_tree
    observations.write.parquet(str(tmp_path / "observations"))
    command = [sys.executable, "-c", OF_ANY_SESSION, str(exported), str(tmp_path / "observations"), str(tmp_path / "out")]
    done = subprocess.run(
        command, cwd=tmp_path, env=alone(tmp_path / "alone"), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    answers = [row.asDict() for row in spark.read.parquet(str(tmp_path / "out")).collect()]
    assert len(answers) == observations.count()
    assert_same(risks_of(answers, answers), of_platform(observations, folder, card))
    assert {a["comp1_probability"] for a in answers if a["status"] != "scored"} == {None}
