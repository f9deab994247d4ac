"""The short form of the kill -9 trials: one load, three kills. `make chaos` is the long one."""

import random

import pytest

from pdm_assets_tests.chaos import trials

pytestmark = [pytest.mark.journey, pytest.mark.long]


def test_whatever_is_killed_the_platform_finishes_by_itself_and_no_row_is_lost(tmp_path):
    files = trials.simulate_files(tmp_path / "fleet")
    expected = trials.undisturbed(tmp_path / "undisturbed", files, 2)
    victims = ("run worker", "daemon", "code server")
    done = list(trials.disturbed(tmp_path / "disturbed", files, victims, random.Random(1)))
    assert [trial.victim for trial in done] == list(victims)
    found = trials.content(tmp_path / "disturbed")
    assert found["scores/component_risk"].num_rows > 0
    assert trials.differences(found, expected) == []
