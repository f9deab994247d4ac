"""Which Java Spark runs on: a fit one, that of JAVA_HOME first, then that of the PATH."""

import os

import pyarrow as pa
import pytest

from pdm_assets.engine import java as module
from pdm_assets.engine.java import JavaError, java_home
from pdm_assets.models.fitting import FitProcess, FitProcessError, FitSpec


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a Java that says what it is told to, where packages put them; nothing else is installed."""
    monkeypatch.setattr(module, "FOLDERS", (f"{tmp_path}/jvm/*",))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.delenv("JAVA_HOME", raising=False)

    def install(name, said, *, on_path=False):
        java = tmp_path / "jvm" / name / "bin" / "java"
        java.parent.mkdir(parents=True)
        java.write_text(f"#!/bin/sh\nhome={java.parent.parent}\n{said}\n")
        java.chmod(0o755)
        if on_path:
            (tmp_path / "path").mkdir()
            (tmp_path / "path" / "java").symlink_to(java)
        return java.parent.parent

    return install


def version(text):
    """As Java prints it among other properties."""
    told = ("java.home = $home", "java.vendor = Somebody", f"java.version = {text}", "java.version.date = 2026-04-21")
    return "\n".join(f'echo "    {line}" >&2' for line in told)


@pytest.mark.parametrize("said", ["17.0.15", "21", "21.0.7", "25.0.3", "25.0.10", "25.1"])
def test_what_spark_supports_is_taken(install, said):
    home = install("a", version(said))
    assert java_home() == home


@pytest.mark.parametrize("said", ["1.8.0_412", "11.0.2", "18.0.1", "22", "23.0.1", "24.0.2", "25", "25.0.2", "26"])
def test_what_it_does_not_is_named_and_refused(install, said):
    home = install("a", version(said))
    with pytest.raises(JavaError, match=rf"Java found: {said.split('_')[0]} \({home}\)\. .*25 from 25\.0\.3 on"):
        java_home()


def test_the_one_on_the_path_is_taken_though_there_is_a_newer_one(install):
    on_path = install("a", version("17.0.15"), on_path=True)
    install("b", version("25.0.3"))
    assert java_home() == on_path


def test_with_none_on_the_path_the_newest_is(install):
    install("a", version("17.0.15"))
    newest = install("b", version("21.0.7"))
    assert java_home() == newest


@pytest.mark.parametrize("said", ["11.0.2", "25.0.2", "26.0.1"])
def test_if_that_is_not_fit_the_newest_is_that_is(install, said):
    install("a", version("17.0.15"))
    install("b", version(said), on_path=True)
    newest = install("c", version("21.0.10"))
    install("d", version("21.0.7"))
    install("e", version("27"))
    assert java_home() == newest


def test_the_one_on_the_path_may_be_a_script_that_starts_another(install, tmp_path):
    home = install("a", version("17.0.15"))
    (tmp_path / "path").mkdir()
    shim = tmp_path / "path" / "java"
    shim.write_text(f'#!/bin/sh\nexec {tmp_path}/elsewhere/a/bin/java "$@"\n')
    shim.chmod(0o755)
    (tmp_path / "jvm").rename(tmp_path / "elsewhere")
    assert java_home() == home  # it says so itself


def test_one_that_does_not_run_is_passed_over(install):
    fit = install("a", version("17.0.15"))
    install("b", "exit 1")
    install("c", "echo 'command not found' >&2")
    assert java_home() == fit


def test_java_home_wins(install, monkeypatch):
    named = install("a", version("17.0.15"))
    install("b", version("25.0.3"))
    monkeypatch.setenv("JAVA_HOME", str(named))
    assert java_home() == named


def test_a_java_home_that_is_not_fit_is_refused_though_another_is_installed(install, monkeypatch):
    named = install("a", version("25.0.2"))
    install("b", version("17.0.15"))
    monkeypatch.setenv("JAVA_HOME", str(named))
    with pytest.raises(JavaError, match=rf"JAVA_HOME, {named}, is Java 25.0.2"):
        java_home()


def test_without_any_it_says_what_to_install(install):
    with pytest.raises(JavaError, match=r"no Java found\. .*openjdk-17-jre-headless"):
        java_home()


def test_the_fit_is_started_on_it(install, monkeypatch, tmp_path):
    path = os.defpath  # what Spark's scripts call is there
    install("a", version("26.0.1"), on_path=True)
    install("b", f'{version("21.0.7")}\n[ "$1" = -XshowSettings:properties ] || echo "$@" >> {tmp_path}/started\n')
    monkeypatch.setenv("PATH", f"{tmp_path}/path:{path}")
    spec = FitSpec(("comp1",), ("volt_mean_12h",), "decision_tree", {}, seed=1)
    with pytest.raises(FitProcessError, match="ended with 4"), FitProcess() as process:
        process.fit(pa.table({"volt_mean_12h": [1.0]}), spec, tmp_path / "never")
    assert "org.apache.spark" in (tmp_path / "started").read_text()
