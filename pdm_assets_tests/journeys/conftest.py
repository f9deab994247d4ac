"""One platform for the journeys of `make test-slow`: taking a history in is a third of their time."""

import pytest

from pdm_assets_tests.journeys.daemon import platform
from pdm_assets_tests.journeys.history import END, HISTORY_END, SETTINGS, fleet, take_in


@pytest.fixture(scope="package")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("journey")


@pytest.fixture(scope="package")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet")
    fleet(folder / "history", HISTORY_END)
    fleet(folder / "whole", END)
    return folder


@pytest.fixture(scope="package")
def it(data, files):
    """The platform, once it has taken the history in. The modules find it as the one before left it."""
    with platform(data, **SETTINGS) as it:
        take_in(it, files / "history")
        yield it
