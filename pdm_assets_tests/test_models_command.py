"""`pdm-assets models`: what is listed, put in force, taken back, and moved to another lake."""

import dataclasses
import datetime as dt
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from pdm_assets import cli
from pdm_assets.models.promotion import Condition, Verdict
from pdm_assets.resources import lake
from pdm_assets_tests.models.fleet import CUTOFF
from pdm_assets_tests.plant import Plant

TODAY = dt.date(2015, 3, 10)
YES = Verdict(True, (Condition("good", True, "for a test"),))
NO = Verdict(False, (Condition("good", False, "it sees ghosts"),))


@pytest.fixture(scope="module")
def made(tmp_path_factory, engine, tree):
    """Three versions of one tree, below a root that nobody changes: two were promoted, one was refused."""
    plant = Plant(tmp_path_factory.mktemp("made"), engine)
    for version, cutoff, verdict in (
        ("first", CUTOFF, YES),
        ("second", CUTOFF + dt.timedelta(days=7), YES),
        ("third", CUTOFF + dt.timedelta(days=14), NO),
    ):
        card = dataclasses.replace(tree.card, version=version, cutoff=cutoff)
        plant.store.save(tree._replace(card=card), {}, "a-run")
        plant.store.decide(version, verdict, cutoff, "gate, run 1")
    return Path(plant.lake.root).parent


@pytest.fixture
def plant(made, tmp_path, engine):
    """A plant with a copy of the three versions: to copy them takes no Spark."""
    shutil.copytree(made, tmp_path / "plant")
    return Plant(tmp_path / "plant", engine)


@pytest.fixture
def models(plant, monkeypatch):
    """The command on the plant's store, on a day in its life."""
    monkeypatch.setattr(cli, "_store", lambda: plant.store)
    monkeypatch.setattr(cli, "_today", lambda: TODAY)

    def run(*arguments):
        result = CliRunner().invoke(cli.main, ["models", *map(str, arguments)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def in_force(store, day):
    return store.in_force(day, store.registered(), store.decisions()).version


def test_the_list_says_what_was_decided_and_which_is_in_force_today(models):
    assert models("list").output.splitlines() == [
        "  first  knows the days before 2015-02-14  promoted from 2015-02-14 on",
        "* second  knows the days before 2015-02-21  promoted from 2015-02-21 on",
        "  third  knows the days before 2015-02-28  refused for 2015-02-28",
    ]


def test_a_version_is_shown_with_its_windows_the_baselines_and_every_decision(models):
    said = models("show", "third").output
    for words in (
        "train: days 2015-01-03 to before 2015-01-23, 240 observations",
        "maxDepth=2",
        "features/observations@3",
        "| rule: own error |",
        "refused for 2015-02-28 by gate, run 1: good: it sees ghosts",
    ):
        assert words in said


def test_a_refused_version_can_be_promoted_and_rolled_back_from_tomorrow_on(models, plant):
    tomorrow = TODAY + dt.timedelta(days=1)
    assert models("promote", "third", "--reason", "the gate is wrong").output == f"third is in force from {tomorrow} on\n"
    assert (in_force(plant.store, TODAY), in_force(plant.store, tomorrow)) == ("second", "third")
    decision = plant.store.decisions()[-1]
    assert (decision.version, decision.reason) == ("third", "asked for: the gate is wrong")
    assert decision.decided_by.startswith("user ")
    assert models("rollback").output == f"second is in force from {tomorrow} on\n"
    assert models("rollback").output == f"first is in force from {tomorrow} on\n"
    assert in_force(plant.store, TODAY) == "second"
    nothing = models("rollback")
    assert nothing.exit_code == 1
    assert "no other model was in force before that of 2015-03-11" in nothing.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("promote", "fourth"), "no model 'fourth'. Registered: first, second, third"),
        (("promote", "third", "--from", "2015-02-27"), "third may have learnt from 2015-02-27: its cutoff is 2015-02-28"),
        (("promote", "third", "--from", "soon"), "'soon' is no day"),
        (("show", "fourth"), "no model 'fourth'"),
        (("export", "fourth", "fourth.zip"), "no model 'fourth'"),
    ],
)
def test_what_can_not_be_done_is_said_and_changes_nothing(models, plant, arguments, said):
    before = plant.store.decisions()
    result = models(*arguments)
    assert result.exit_code != 0
    assert said in result.output
    assert plant.store.decisions() == before


@pytest.fixture
def new(plant, tmp_path, tree):
    """An archive of a model that is not registered yet."""
    from pdm_assets.resources.model_folder import pack, seal

    folder = plant.store.folder("third")
    kept = (folder / "card.json").read_text()
    (folder / "card.json").write_text(dataclasses.replace(tree.card, version="new").to_json())
    seal(folder)
    pack(folder, tmp_path / "new.zip")
    (folder / "card.json").write_text(kept)
    seal(folder)
    return tmp_path / "new.zip"


def test_a_lake_that_must_be_upgraded_first_is_said(models, plant, new, monkeypatch):
    before = plant.store.decisions()
    monkeypatch.setattr(lake, "FORMAT", lake.FORMAT + 1)
    for arguments in (("promote", "third"), ("rollback",), ("import", new)):
        result = models(*arguments)
        assert result.exit_code == 1
        assert "was written by an earlier release" in result.output
        assert "then run `pdm-assets lake upgrade`" in result.output
    assert (plant.store.decisions(), len(plant.store.registered())) == (before, 3)


def test_a_damaged_model_is_told_from_a_whole_one_and_not_promoted(models, plant):
    (plant.store.folder("third") / "card.json").write_text("{}")
    result = models("promote", "third")
    assert result.exit_code == 1
    assert "card.json is not what was written: its checksum differs. Restore the folder from a backup" in result.output


def stages(pipeline):
    return sorted(path.name for path in (pipeline / "stages").iterdir())


def test_a_version_moves_whole_to_another_lake_and_is_not_in_force_there_until_promoted(
    models, plant, tmp_path, engine, tree, spark, monkeypatch
):
    archive = tmp_path / "second.zip"
    assert models("export", "second", archive).output.startswith(f"{archive}: second, ")
    other = Plant(tmp_path / "other", engine)
    monkeypatch.setattr(cli, "_store", lambda: other.store)
    assert models("list").output == "no model is registered: materialize models/failure_model\n"
    assert "second is registered" in models("import", archive).output
    assert "none is in force on 2015-03-10" in models("list").output
    pipeline, card = other.store.load("second")
    assert card == plant.store.card("second")
    assert stages(pipeline.folder) == stages(tree.pipeline.folder)
    assert models("promote", "second", "--from", "2015-03-01").exit_code == 0
    assert in_force(other.store, TODAY) == "second"
    again = models("import", archive)
    assert again.exit_code == 1
    assert "second is registered already" in again.output
    assert sorted(path.name for path in (tmp_path / "other" / "models").iterdir()) == ["second"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"horizon_hours": 24}, "foretells 24 h ahead, PDM_HORIZON_HOURS=48"),
        ({"features": ("volt_mean_12h", "oil_mean_12h")}, "reads features that this platform does not have: oil_mean_12h"),
        ({"thresholds": {"comp1": 0.5, "comp9": 0.5}}, "do not have the same components: comp2, comp3, comp4, comp9"),
        ({"version": "../third"}, "'../third' is no name for a version"),
    ],
)
def test_a_model_that_can_not_work_here_is_not_taken_in(models, plant, tmp_path, tree, changed, said):
    from pdm_assets.resources.model_folder import pack, seal

    folder = plant.store.folder("third")
    card = dataclasses.replace(tree.card, **{"version": "new", **changed})
    (folder / "card.json").write_text(card.to_json())
    seal(folder)
    pack(folder, tmp_path / "new.zip")
    result = models("import", tmp_path / "new.zip")
    assert result.exit_code == 1
    assert said in result.output
    assert len(plant.store.registered()) == 3
    assert not list((tmp_path / "plant" / "models").glob(".*"))


def test_a_model_whose_pipeline_reads_other_than_its_card_says_is_not_taken_in(models, plant, tmp_path, tree):
    from pdm_assets.resources.model_folder import pack, seal

    folder = plant.store.folder("third")
    (folder / "card.json").write_text(dataclasses.replace(tree.card, version="new").to_json())
    for path in folder.rglob("metadata/part-*"):
        path.write_text(path.read_text().replace("volt_mean_12h", "oil_mean_12h"))
        path.with_name(f".{path.name}.crc").unlink(missing_ok=True)
    seal(folder)
    pack(folder, tmp_path / "new.zip")
    result = models("import", tmp_path / "new.zip")
    assert result.exit_code == 1
    assert "the pipeline of new can't score rows of features/observations" in result.output
    assert "oil_mean_12h" in result.output
    assert len(plant.store.registered()) == 3
    assert not list((tmp_path / "plant" / "models").glob(".*"))
