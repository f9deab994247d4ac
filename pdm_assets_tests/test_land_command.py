"""`pdm-assets land`: what it says of what it takes, of what it does not, and of a data root that takes nothing."""

import pytest
from click.testing import CliRunner

from pdm_assets import cli

ERRORS = "datetime,machineID,errorID\n2015-01-01 06:00:00,1,error1\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "errors.csv").write_text(ERRORS)
    return tmp_path / "folder"


def land(folder, data):
    result = CliRunner(env={"PDM_DATA": str(data)}).invoke(cli.main, ["land", str(folder)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_a_data_root_that_takes_nothing_is_said(folder, tmp_path):
    (tmp_path / "file").write_text("")
    for data in ("/proc/1/nodata", tmp_path / "file"):
        refused = land(folder, data)
        assert refused.exit_code == 1
        assert f"Error: could not land below {data}/landing: [Errno " in refused.output
        assert "See to it, or to PDM_DATA, and run it again" in refused.output


def test_a_file_that_is_not_taken_for_its_name_is_named(folder, tmp_path):
    for name in ("PdM_telemetry (1).csv", "telemetry-2.csv", "README.txt", "._errors.csv"):
        (folder / name).write_text("x")
    skipped = [
        "not taken, its name is none of the usual: PdM_telemetry (1).csv",
        "not taken, its name is none of the usual: telemetry-2.csv",
    ]
    said = land(folder, tmp_path / "data")
    assert said.exit_code == 0
    assert said.output.splitlines() == [*skipped, f"landed {tmp_path}/data/landing/errors/errors.csv"]
    (folder / "errors.csv").unlink()
    nothing = land(folder, tmp_path / "data")
    assert nothing.exit_code == 1
    assert nothing.output.splitlines()[:2] == skipped
    assert nothing.output.splitlines()[2].startswith(f"Error: {folder}: no file to land. Usual names: telemetry.csv, ")
