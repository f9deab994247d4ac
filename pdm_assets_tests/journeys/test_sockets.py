"""What the whole platform opens to the network, asked of the system."""

import os

import pytest

from pdm_assets_tests.journeys.daemon import platform
from pdm_assets_tests.resources.test_engine import listening


@pytest.mark.slow
def test_web_server_daemon_and_code_server_listen_on_this_machine_only(tmp_path):
    with platform(tmp_path) as it:
        addresses = listening(os.getpid())
        assert ("127.0.0.1", int(it.url.rsplit(":", 1)[1])) in addresses
        assert {ip for ip, _ in addresses} <= {"127.0.0.1", "::1"}
