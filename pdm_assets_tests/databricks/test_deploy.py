"""The files of deploy/databricks, held against the SDK's own types: as much as can be said of them without a workspace."""

import re
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
import yaml
from databricks.sdk.service import catalog, jobs

from pdm_assets.databricks_task import _day
from pdm_assets.resources.databricks_jobs import ENTRY_POINT, PACKAGE, _lost, compute_in
from pdm_assets.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "databricks"
BUNDLE = yaml.safe_load((DEPLOY / "databricks.yml").read_text())


def bundle_of(target):
    """The bundle's resources with the variables of a target in place."""
    given = BUNDLE["targets"][target].get("variables", {})
    values = {name: given.get(name, said.get("default")) for name, said in BUNDLE["variables"].items()}
    assert set(given) <= set(values)
    assert None not in values.values(), f"{target} leaves {[name for name, value in values.items() if value is None]} open"
    text = (DEPLOY / "databricks.yml").read_text()
    for name, value in values.items():
        text = text.replace(f"${{var.{name}}}", str(value))
    # In mode development Databricks gives the schema another name.
    schema = f"dev_me_{values['schema']}" if BUNDLE["targets"][target].get("mode") == "development" else values["schema"]
    text = text.replace("${resources.schemas.pdm.name}", schema)
    text = text.replace("${resources.volumes.jobs.volume_path}", f"/Volumes/{values['catalog']}/{schema}/jobs")
    text = text.replace("${workspace.current_user.userName}", "me@plant")
    assert "${" not in text
    return yaml.safe_load(text)["resources"]


@pytest.mark.parametrize("target", ["dev", "staging", "prod"])
def test_the_job_is_one_that_databricks_knows(target):
    job = bundle_of(target)["jobs"]["days"]
    for permission in job.pop("permissions"):
        request = {**permission, "permission_level": permission["level"]}
        del request["level"]
        assert list(_lost(request, jobs.JobAccessControlRequest.from_dict(request).as_dict())) == []
    for cluster in job["job_clusters"]:  # text where a variable stands
        cluster["new_cluster"]["autoscale"]["max_workers"] = int(cluster["new_cluster"]["autoscale"]["max_workers"])
    assert list(_lost(job, jobs.JobSettings.from_dict(job).as_dict())) == []
    environ = job["job_clusters"][0]["new_cluster"]["spark_env_vars"]
    settings = Settings.from_environ(environ)
    assert settings.catalog == bundle_of(target)["schemas"]["pdm"]["catalog_name"]
    volume = environ["JOBS_VOLUME"]
    assert volume == f"/Volumes/{settings.catalog}/{settings.schema}/jobs"
    assert settings.data == Path(volume) / "plant"
    scripts = job["job_clusters"][0]["new_cluster"]["init_scripts"]
    assert scripts == [{"volumes": {"destination": f"{volume}/install.sh"}}]
    assert environ["JOBS_WHEEL"] == f"pdm_assets-{version('pdm-assets')}-py3-none-any.whl"


def test_a_name_that_databricks_does_not_know_is_found():
    job = bundle_of("dev")["jobs"]["days"]
    job["tasks"][0]["max_retry"] = 2
    del job["permissions"]
    assert list(_lost(job, jobs.JobSettings.from_dict(job).as_dict())) == ["tasks.max_retry"]


@pytest.mark.parametrize("kind", ["schemas", "volumes"])
def test_privileges_are_ones_that_databricks_knows(kind):
    for resource in bundle_of("prod")[kind].values():
        for grant in resource["grants"]:
            assert {catalog.Privilege(privilege).value for privilege in grant["privileges"]} == set(grant["privileges"])


def test_the_task_is_what_the_wheel_has():
    (task,) = bundle_of("dev")["jobs"]["days"]["tasks"]
    wheel = task["python_wheel_task"]
    assert (wheel["package_name"], wheel["entry_point"]) == (PACKAGE, ENTRY_POINT)
    (found,) = entry_points(group="console_scripts", name=ENTRY_POINT)
    assert found.load().__module__ == "pdm_assets.databricks_task"
    assert [_day(given["default"]) for given in bundle_of("dev")["jobs"]["days"]["parameters"]] == [_day("yesterday")] * 2
    assert _day("2026-01-02") == "2026-01-02"
    with pytest.raises(ValueError, match="Invalid isoformat"):
        _day("today")


def test_the_compute_file_is_taken_and_its_init_script_is_there():
    compute = compute_in(DEPLOY / "job-cluster.json")
    scripts = compute["new_cluster"]["init_scripts"]
    given = set(compute["new_cluster"]["spark_env_vars"])
    assert given == set(re.findall(r"\$(JOBS_[A-Z]+)", (DEPLOY / "install.sh").read_text()))
    assert [(DEPLOY / Path(script["volumes"]["destination"]).name).exists() for script in scripts] == [True]
    assert "requirements-databricks.txt" in (DEPLOY / "install.sh").read_text()


def pins(path):
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", path.read_text(), re.MULTILINE))


def test_jobs_get_what_the_lock_file_says_and_no_other_spark():
    there, here = pins(DEPLOY / "requirements-databricks.txt"), pins(ROOT / "requirements.lock")
    assert there.items() <= here.items()
    assert {"dagster", "dagster-pyspark", "deltalake", "protobuf"} <= set(there)
    assert not {"pyspark", "py4j", "delta-spark", "numpy", "pandas", "pyarrow"} & set(there)
