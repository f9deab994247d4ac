"""One Dagster instance writes a lake; a second is told who does."""

import threading

import pytest

from pdm_assets.resources.faults import TRIED_AGAIN
from pdm_assets.resources.hold import LakeHeld, held
from pdm_assets_tests.plant import Plant, failure


@pytest.fixture
def lock(tmp_path, monkeypatch):
    monkeypatch.setattr("pdm_assets.resources.hold.PATIENCE_S", 0.2)
    return tmp_path / ".lake.held.lock"


def test_who_goes_by_the_same_name_holds_it_too_and_another_is_told_the_name(lock):
    with held(lock, "one"):
        with held(lock, "one"), pytest.raises(LakeHeld, match=r"written by one, and not by another"), held(lock, "another"):
            pass
        with pytest.raises(LakeHeld), held(lock, "another"):
            pass
    with held(lock, "another"), pytest.raises(LakeHeld, match=r"written by another, and not by one"), held(lock, "one"):
        pass


def test_of_many_that_come_at_once_those_of_one_name_hold_it_and_never_two_names(lock, monkeypatch):
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


def test_a_run_of_a_second_instance_is_told_who_writes_and_is_tried_again(tmp_path, engine, monkeypatch):
    monkeypatch.setattr("pdm_assets.resources.hold.PATIENCE_S", 0.2)
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
