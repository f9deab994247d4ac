"""What the jobs' run config takes, and which version a range is scored by."""

import datetime as dt
from typing import get_args

import dagster as dg
import pytest

from pdm_assets.automation.jobs import _version_for
from pdm_assets.definitions import defs
from pdm_assets.resources.lake import Lake
from pdm_assets.resources.model_store import ModelStore, Registered
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.settings import ModelType
from pdm_assets_tests.builders import day, utc


def training(**config):
    return {"ops": {"models__failure_model": {"config": config}}}


@pytest.mark.parametrize("kind", get_args(ModelType))
def test_a_training_takes_every_model_type(kind):
    assert dg.validate_run_config(defs.resolve_job_def("train_model"), training(model_type=kind))


@pytest.mark.parametrize("job", ["train_model", "process_days"])
def test_a_model_type_that_does_not_exist_is_refused_before_the_run_and_those_there_are_named(job):
    with pytest.raises(dg.DagsterInvalidConfigError) as refused:
        dg.validate_run_config(defs.resolve_job_def(job), training(model_type="forest"))
    assert "models__failure_model:config:model_type" in str(refused.value)
    for word in ("forest", *get_args(ModelType)):
        assert word in str(refused.value)


def registered(version, kind, cutoff, horizon_hours=48):
    return Registered(version, kind, horizon_hours, day(cutoff), utc("2015-06-01 00:00") + dt.timedelta(hours=horizon_hours))


def version_for(on, model, *models):
    lake = Lake(spark=SparkEngine(), root="nowhere")
    return _version_for(day(on), model, ModelStore(lake=lake, root="nowhere", horizon_hours=48), list(models))


OLD = registered("old", "random_forest", "2015-02-01")
NEW = registered("new", "random_forest", "2015-03-01")
SHORT = registered("short", "random_forest", "2015-01-01", 24)


def test_a_type_means_its_newest_version_that_knew_nothing_of_the_day():
    assert version_for("2015-02-28", "random_forest", SHORT, OLD, NEW) == "old"
    assert version_for("2015-03-01", "random_forest", SHORT, OLD, NEW) == "new"


def test_before_the_first_cutoff_no_version_of_a_type_fits_whatever_another_horizon_has():
    with pytest.raises(dg.Failure) as refused:
        version_for("2015-01-31", "random_forest", SHORT, OLD, NEW)
    assert "the oldest has cutoff 2015-02-01" in refused.value.description


def test_where_all_of_a_type_foretell_another_horizon_the_horizon_is_what_is_named():
    with pytest.raises(dg.Failure) as refused:
        version_for("2015-02-28", "random_forest", SHORT, registered("long", "random_forest", "2015-01-01", 72))
    said = refused.value.description
    assert "no random_forest foretells 48 h ahead (PDM_HORIZON_HOURS), those registered foretell 24 h, 72 h" in said
    assert "cutoff" not in said


def test_a_version_of_another_horizon_is_refused_by_name_and_the_way_out_is_said():
    with pytest.raises(dg.Failure) as refused:
        version_for("2015-02-28", "short", SHORT, OLD, NEW)
    said = refused.value.description
    assert said.startswith("short foretells 24 h ahead, PDM_HORIZON_HOURS=48: name a version of this horizon")
