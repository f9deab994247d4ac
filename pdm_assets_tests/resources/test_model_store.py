"""The model store when a run dies half-way, and when two decide at once."""

import datetime as dt
import json
import shutil
import threading

import pytest

from pdm_assets.models.promotion import Condition, Verdict
from pdm_assets.resources import model_folder
from pdm_assets.resources.model_folder import ModelFolderError
from pdm_assets.resources.model_store import Decision, ModelStore, NoSuchModel, Registered
from pdm_assets.schemas.features import DECISIONS, REGISTRY
from pdm_assets_tests.builders import utc
from pdm_assets_tests.models.fleet import CUTOFF
from pdm_assets_tests.plant import Plant

YES = Verdict(True, (Condition("good", True, "for a test"),))


@pytest.fixture
def store(tmp_path, engine):
    return Plant(tmp_path, engine).store


def die(*_, **__):
    raise KeyboardInterrupt("the run was killed")


@pytest.mark.parametrize(
    ("owner", "step"),
    [
        pytest.param(model_folder, "seal", id="after the pipeline was written"),
        pytest.param(ModelStore, "_put", id="before the folder has its name"),
        pytest.param(ModelStore, "_register", id="before it is registered"),
    ],
)
def test_a_model_that_was_not_kept_whole_is_none_and_the_next_training_goes_on(store, tree, monkeypatch, owner, step):
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, die)
        with pytest.raises(KeyboardInterrupt):
            store.save(tree, {}, "the run that died")
    assert store.registered() == []
    with pytest.raises(NoSuchModel, match=r"no model 'tree'\. Registered: none"):
        store.load("tree")
    # even under the same name
    store.save(tree, {}, "the next run")
    assert [model.version for model in store.registered()] == ["tree"]
    assert store.load("tree")[1] == tree.card
    assert [path.name for path in store.folder("tree").parent.iterdir()] == ["tree"]


def test_a_registered_version_is_never_replaced(store, tree):
    store.save(tree, {}, "a run")
    with pytest.raises(ModelFolderError, match="tree is registered already"):
        store.save(tree, {}, "another run")
    assert len(store.registered()) == 1
    model_folder.check(store.folder("tree"))


def test_an_import_that_was_broken_off_can_be_repeated(store, tree, tmp_path, engine):
    store.save(tree, {}, "a run")
    model_folder.pack(store.folder("tree"), tmp_path / "tree.zip")
    other = Plant(tmp_path / "other", engine).store
    shutil.copytree(store.folder("tree"), other.folder("tree"))  # as if the row had never been written
    assert other.take_in(tmp_path / "tree.zip", "user ann") == tree.card
    (taken,) = [each for each in other.lake.delta(REGISTRY).history() if each["operation"] == "WRITE"]
    assert json.loads(taken["userMetadata"])["taken_by"] == "user ann"
    assert [model.version for model in other.registered()] == ["tree"]


def all_at_once(*actions):
    """Run them in threads that begin together; what each raised."""
    together, errors = threading.Barrier(len(actions)), []

    def run(action):
        together.wait()
        try:
            action()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_of_one_version_that_is_imported_twice_at_once_one_is_registered(store, tree, tmp_path, engine, monkeypatch):
    store.save(tree, {}, "a run")
    model_folder.pack(store.folder("tree"), tmp_path / "tree.zip")
    other = Plant(tmp_path / "other", engine).store
    both = threading.Barrier(2)
    monkeypatch.setattr(ModelStore, "_try_out", lambda *_: both.wait())  # neither has registered when the other looks
    (error,) = all_at_once(*[lambda: other.take_in(tmp_path / "tree.zip", "user ann")] * 2)
    assert isinstance(error, ModelFolderError)
    assert str(error) == "tree is registered already"
    assert [model.version for model in other.registered()] == ["tree"]
    assert [path.name for path in other.folder("tree").parent.iterdir()] == ["tree"]
    model_folder.check(other.folder("tree"))


def test_two_champions_that_are_promoted_at_once_are_both_on_record_and_the_later_is_in_force(store):
    # none has decided before: the table itself is made by four at once
    users = {f"user {n}": ("one", "other")[n % 2] for n in range(4)}
    promotions = [lambda by=by, version=version: store.decide(version, YES, CUTOFF, by) for by, version in users.items()]
    assert all_at_once(*promotions) == []
    found = store.decisions()
    assert {decision.decided_by: decision.version for decision in found} == users
    models = [Registered(version, "random_forest", 48, CUTOFF, utc("2015-03-01 06:00")) for version in ("one", "other")]
    last = max(found, key=lambda decision: decision.decided_at)
    assert store.in_force(CUTOFF, models, found).version == last.version


def test_of_two_promotions_of_one_day_the_later_made_prevails_and_of_one_instant_the_greater_name(store, spark):
    def decided(version, at, first):
        return version, "promoted", first, utc(at), "a user", "", "[]"

    later_day = CUTOFF + dt.timedelta(days=1)
    rows = [
        decided("c", "2015-03-01 06:01", CUTOFF),
        decided("b", "2015-03-01 06:02", CUTOFF),
        decided("a", "2015-03-01 06:02", CUTOFF),
        decided("d", "2015-03-01 06:00", later_day),
    ]
    store.lake.append(DECISIONS, spark.createDataFrame(rows, DECISIONS.struct), {})
    assert [decision.version for decision in store.decisions()] == ["c", "a", "b", "d"]


@pytest.mark.parametrize(
    ("promoted", "before"),
    [
        ("", None),
        ("a", None),
        ("aa", None),
        ("abc", "b"),
        ("abcb", "a"),  # rolled back once: the next goes on from there
        ("abcba", None),
        ("abac", "a"),  # b was left for a: nobody returns to it
        ("abacd", "c"),
        ("abcab", "a"),  # b got another chance
    ],
)
def test_a_rollback_returns_to_what_the_model_in_force_took_over_from(store, promoted, before):
    trained = utc("2015-03-01 06:00")
    models = [Registered(version, "random_forest", 48, CUTOFF, trained) for version in "abcd"]
    decisions = [
        Decision(version, True, CUTOFF, trained + dt.timedelta(hours=n), "a user", "") for n, version in enumerate(promoted)
    ]
    found = store.predecessor(CUTOFF, models, decisions)
    assert (found and found.version) == before
