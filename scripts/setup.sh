#!/usr/bin/env bash
# Makes .venv from the lock file and installs a Java runtime where it may. Called by `make setup`; safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "Python 3.11 or newer is needed (found: $("$PYTHON" --version 2>&1 || true)). Say which with PYTHON=..." >&2
    exit 1
fi
if [ ! -x .venv/bin/python ]; then
    "$PYTHON" -m venv .venv || { echo "no venv: on Debian/Ubuntu, apt-get install python3-venv" >&2; exit 1; }
fi
echo "installing the locked packages into .venv ..."
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
export VIRTUAL_ENV=$PWD/.venv
# Bytecode now, once: where PYTHONDONTWRITEBYTECODE is set, as in many containers, each run would compile 4,600 modules anew.
.venv/bin/uv pip sync --quiet --compile-bytecode --require-hashes requirements-uv.lock requirements.lock
.venv/bin/uv pip install --quiet --no-deps --no-build-isolation -e .
.venv/bin/python -m compileall -q pdm_assets

install_java() { # Debian 13 has no 17
    "$@" apt-get update -qq
    "$@" apt-get install -y -qq openjdk-17-jre-headless || "$@" apt-get install -y -qq openjdk-21-jre-headless
}
# Java is for the fit of a model alone. Where JAVA_HOME names one that will not do, another one would not be taken.
if [ -z "${JAVA_HOME:-}" ] && ! .venv/bin/python -m pdm_assets.engine.java >/dev/null 2>&1; then
    echo "no Java that Spark MLlib runs on: trying to install one ..."
    if command -v brew >/dev/null; then
        brew install openjdk@17 || true
    elif command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        install_java env || true
    elif command -v apt-get >/dev/null && sudo -n true 2>/dev/null; then
        install_java sudo || true
    fi
fi
# Everything but the fit works without it: a warning that says what is wrong and what to install, and no failure.
if ! lacking=$(.venv/bin/python -m pdm_assets.engine.java 2>&1 >/dev/null); then
    echo "warning: no model can be fitted on this machine, everything else works. $lacking" >&2
fi
touch .venv/.ready
