"""Secrets are planted where they belong, and everything that the platform then tells or keeps is searched for them."""

import base64
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import dagster as dg
import psutil
import pytest
from click.testing import CliRunner
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value
from pyspark.sql.connect.client import retries
from pyspark.sql.connect.client.retries import DefaultPolicy
from pyspark.sql.connect.session import SparkSession as ConnectSession

from pdm_assets import cli
from pdm_assets.engine.spark import SparkUnavailable
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.settings import SettingError, Settings
from pdm_assets_tests.plant import WIRED, Plant, failure
from pdm_assets_tests.spark_server import connect_server

WRONG_TOKEN, PASSWORD = "wrong-token-5UPPOSED-secret", "mirror-password-5UPPOSED-secret"


class Refusing(BaseHTTPRequestHandler):
    """A server that knows nobody."""

    asked: list[str] = []  # noqa: RUF012

    def answer(self):
        self.asked.append(self.headers.get("Authorization", ""))
        self.send_response(401)
        self.end_headers()

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture
def refusing():
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def run(root, spark: SparkEngine):
    """A day of a plant on a stored instance, as the daemon would run it; the run, and the snapshot that the UI shows."""
    plant = Plant(root, spark)
    definitions = dg.Definitions(
        [each for each in WIRED if not isinstance(each, dg.AssetChecksDefinition)], resources=plant.resources
    )
    snapshot = serialize_value(RepositorySnap.from_def(definitions.get_repository_def()))
    assert "memory_mb" in snapshot
    (root / "dagster").mkdir(parents=True)
    plant.instance = dg.DagsterInstance.local_temp(str(root / "dagster"))
    plant.land_fleet(1)
    return plant.run("2015-01-01", tables="machines"), snapshot


@pytest.mark.slow  # a Spark server
def test_no_secret_is_told_or_kept(tmp_path, tmp_path_factory, spark, refusing, monkeypatch, capfd):
    monkeypatch.setattr(SparkEngine, "_address", None)  # given back to what it was in the end
    with connect_server(tmp_path_factory.mktemp("server")) as server:
        address = server.settings["PDM_SPARK_REMOTE"]
        settings = Settings(data=tmp_path, engine="spark", spark_remote=address)
        remote = SparkEngine.of(settings)
        good, snapshot = run(tmp_path / "good", remote)
        assert good.success
        strange = Settings(data=tmp_path, engine="spark", spark_remote=address.replace(server.token, WRONG_TOKEN))
        wrong = SparkEngine.of(strange)
        bad, _ = run(tmp_path / "bad", wrong)
    environ = {"PDM_DATA": str(tmp_path / "mirror"), "PDM_MLFLOW_URI": refusing, "MLFLOW_TRACKING_USERNAME": "plant"}
    mirrored = CliRunner().invoke(cli.main, ["models", "mirror"], env={**environ, "MLFLOW_TRACKING_PASSWORD": PASSWORD})
    assert mirrored.exit_code == 1
    assert "is not up to date" in mirrored.output
    basic = base64.b64encode(f"plant:{PASSWORD}".encode()).decode()
    assert f"Basic {basic}" in Refusing.asked, "the password was never used: nothing is shown by its absence"
    of_spark = {"PDM_DATA": str(tmp_path), "PDM_ENGINE": "spark", "PDM_SPARK_REMOTE": address}
    outputs = [CliRunner().invoke(cli.main, each, env=of_spark).output for each in (["models", "list"], ["health"])]

    told = {
        "resources": snapshot,
        "error": failure(bad),
        "representations": f"{settings} {strange} {remote} {wrong}",
        "commands": "".join([*outputs, mirrored.output]),
        "processes": "".join(str(process.info["cmdline"]) for process in psutil.process_iter(["cmdline"])),
        "output": "".join(capfd.readouterr()),
        **{str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()},
    }
    assert any("machines" in str(text) for name, text in told.items() if name.endswith(".db")), "no event log was searched"
    for secret in (server.token, WRONG_TOKEN, PASSWORD, basic):
        for name, text in told.items():
            found = secret.encode() in text if isinstance(text, bytes) else secret in text
            assert not found, f"{name} tells a secret"


@pytest.mark.parametrize(
    "address",
    [
        f"sc://host:15002;token={PASSWORD}",
        f"sc://host:15002/;token=x;{PASSWORD}",
        f"sc://host/;token={PASSWORD}=",
        f"sc:///;token={PASSWORD}",
        f"sc://host/{PASSWORD}",
        f"sc://user:{PASSWORD}@host",
        f"https://host/;token={PASSWORD}",
        f"sc://host:port/;token={PASSWORD}",
        f"sc://host/;token={PASSWORD}\n",
    ],
)
def test_an_address_that_spark_can_not_read_is_refused_and_not_shown(address):
    with pytest.raises(SettingError, match=r"PDM_SPARK_REMOTE: take sc://host:port/") as refused:
        Settings.from_environ({"PDM_ENGINE": "spark", "PDM_SPARK_REMOTE": address})
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize("address", ["sc://host", "sc://host:15002/", "sc://[::1]:1/;token=a%3Db;use_ssl=true"])
def test_an_address_that_spark_can_read_is_taken(address):
    assert Settings(engine="spark", spark_remote=address).spark_remote == address


@pytest.mark.filterwarnings("ignore:.RETRIES_EXCEEDED")
def test_a_server_that_is_not_there_is_given_up_with_our_patience_and_its_client_is_closed(tmp_path, monkeypatch):
    asked, stopped, stop = [], [], ConnectSession.stop

    class Impatient(DefaultPolicy):
        def can_retry(self, e):
            asked.append(e)
            return False

    monkeypatch.setattr(SparkEngine, "_address", None)
    monkeypatch.setattr(retries, "DefaultPolicy", lambda **_: Impatient())
    monkeypatch.setattr(ConnectSession, "stop", lambda self: stopped.append(self) or stop(self))
    remote = SparkEngine.of(Settings(data=tmp_path, engine="spark", spark_remote="sc://127.0.0.1:1"))
    with pytest.raises(SparkUnavailable, match="the Spark server can't be reached, or does not let us in"):
        _ = remote.spark_session
    assert asked, "Spark's own policy was asked, which gives up after ten minutes"
    assert [session.client.is_closed for session in stopped] == [True]
