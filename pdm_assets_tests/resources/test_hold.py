"""One Dagster instance writes a lake; a second is told who does."""

import threading

import dagster as dg
import pytest

from pdm_assets.demo import make_home
from pdm_assets.resources.faults import TRIED_AGAIN
from pdm_assets.resources.hold import BACKUP, LakeHeld, _take, held
from pdm_assets.resources.lake import Lake
from pdm_assets.schemas.raw import MACHINES
from pdm_assets_tests.plant import Plant, failure


@pytest.fixture
def lock(tmp_path):
    return tmp_path / ".lake.held.lock"


@pytest.fixture(autouse=True)
def no_patience(monkeypatch):
    monkeypatch.setattr("pdm_assets.resources.hold.PATIENCE_S", 0.2)


def test_who_goes_by_the_same_name_holds_it_too_and_another_is_told_the_name(lock):
    with held(lock, "one"):
        with held(lock, "one"), pytest.raises(LakeHeld, match=r"written by one, and not by another"), held(lock, "another"):
            pass
        with pytest.raises(LakeHeld), held(lock, "another"):
            pass
    with held(lock, "another"), pytest.raises(LakeHeld, match=r"written by another, and not by one"), held(lock, "one"):
        pass


def test_a_backup_is_waited_for(lock):
    came = []

    def come():
        with held(lock, "a run"):
            came.append("a run")

    run = threading.Thread(target=come)
    with held(lock, f"{BACKUP} (pid 1)"):
        run.start()
        run.join(1)  # longer than the patience that others are met with
        assert came == []
    run.join(30)
    assert came == ["a run"]


@pytest.mark.parametrize("turn", range(5))
def test_of_many_that_come_at_once_those_of_one_name_hold_it_and_never_two_names(lock, monkeypatch, turn):
    monkeypatch.setattr("pdm_assets.resources.hold.PATIENCE_S", 2.0)
    together, inside, seen, refused = threading.Barrier(8), [], [], []

    def come(name):
        together.wait()
        try:
            with held(lock, name):
                inside.append(name)
                seen.append(set(inside))
                everyone_looked.wait(30)
                inside.remove(name)
        except LakeHeld:
            refused.append(name)

    everyone_looked = threading.Event()
    threads = [threading.Thread(target=come, args=(name,)) for name in ["one", "two"] * 4]
    for thread in threads:
        thread.start()
    for _ in range(600):
        if len(seen) + len(refused) == 8:
            break
        threading.Event().wait(0.05)
    everyone_looked.set()
    for thread in threads:
        thread.join()
    assert all(len(names) == 1 for names in seen), "two names held it at once"
    (winner,) = set().union(*seen)
    assert (len(seen), set(refused)) == (4, {"one", "two"} - {winner})


def test_two_that_always_look_at_the_same_time_do_not_keep_each_other_out(lock):
    """Each time one has looked in vain, the other looks."""
    with lock.open("a+") as one, lock.open("a+") as two:
        assert _take(one, "one", "here")
        assert not _take(two, "two", "there")
    with lock.open("a+") as one, lock.open("a+") as two:
        assert [_take(two, "two", "there"), _take(one, "one", "here")] == [True, False]


def test_a_run_of_a_second_instance_is_told_who_writes_and_is_tried_again(tmp_path, engine):
    plant = Plant(tmp_path, engine)
    plant.land_fleet(1)
    with plant.lake.held_by("the Dagster instance elsewhere"):
        refused = plant.run("2015-01-01", tables="machines")
        assert "written by the Dagster instance elsewhere" in failure(refused)
        assert plant.instance.get_run_by_id(refused.run_id).tags[TRIED_AGAIN] == "true"
        assert not (tmp_path / "lake" / "raw" / "machines").exists()
    assert plant.run("2015-01-01", tables="machines").success
    with plant.lake.held_by("the Dagster instance elsewhere"):
        pass  # the run has let go of it


def holder(data):
    return (data / ".lake.held.lock").read_text().splitlines()


def test_an_instance_goes_by_the_number_of_its_storage_whatever_its_home_is_called(tmp_path, engine):
    """Two containers have a home of the same name each; one database may be had from homes of several names."""
    plant = Plant(tmp_path, engine)
    plant.land_fleet(1)
    names = []
    for home in ("one", "another"):
        with dg.DagsterInstance.from_config(str(make_home(tmp_path / home))) as plant.instance:
            assert plant.run("2015-01-01", tables="machines").success
            number = plant.instance.run_storage.get_run_storage_id()
        names.append(holder(tmp_path))
        assert names[-1][0] == f"the Dagster instance {number}"
        assert str(tmp_path / home / "dagster") in names[-1][1]
    assert names[0][0] != names[1][0]


def test_a_run_that_is_refused_is_marked_before_it_fails(tmp_path, engine, monkeypatch):
    marked = []
    monkeypatch.setattr("pdm_assets.resources.faults.wait_for_code_server", lambda run: marked.append((run.status, run.tags)))
    plant = Plant(tmp_path, engine)
    plant.land_fleet(1)
    with dg.DagsterInstance.from_config(str(make_home(tmp_path / "home"))) as plant.instance, plant.lake.held_by("another"):
        assert not plant.run("2015-01-01", tables="machines").success
    ((status, tags),) = marked
    assert (status, tags["dagster/will_retry"]) == (dg.DagsterRunStatus.STARTED, "true")


def test_a_run_holds_the_lake_from_its_first_reading_on_and_what_is_no_run_never(tmp_path, engine):
    plant = Plant(tmp_path, engine)
    plant.land_fleet(1)
    assert plant.run("2015-01-01", tables="machines").success
    plant.lake.read(MACHINES).count()

    @dg.op
    def look(lake: Lake) -> None:
        lake.read(MACHINES).count()
        with pytest.raises(LakeHeld), lake.held_by("another"):
            pass

    @dg.job(resource_defs={"lake": plant.lake})
    def looking():
        look()

    with plant.lake.held_by("another"):
        pass
    assert looking.execute_in_process(instance=plant.instance).success
    with plant.lake.held_by("another"):
        pass
