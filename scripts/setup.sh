#!/usr/bin/env bash
# Makes .venv from the lock file and sees to a Java runtime. Called by `make setup`; safe to run again.
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

java_is_new_enough() {
    local java=java
    [ -n "${JAVA_HOME:-}" ] && java=$JAVA_HOME/bin/java
    "$java" -version 2>&1 | grep -E 'version "(1[7-9]|[2-9][0-9])' >/dev/null
}
if ! java_is_new_enough; then
    echo "no Java 17 or newer: trying to install one ..."
    if command -v brew >/dev/null; then
        brew install openjdk@17 && echo "then: export JAVA_HOME=$(brew --prefix openjdk@17)"
    elif command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        apt-get update -qq && apt-get install -y -qq openjdk-17-jre-headless
    elif command -v apt-get >/dev/null && sudo -n true 2>/dev/null; then
        sudo apt-get update -qq && sudo apt-get install -y -qq openjdk-17-jre-headless
    fi
    java_is_new_enough || {
        echo "Spark needs a Java runtime, 17 or newer. Install it (Debian/Ubuntu: sudo apt-get install" \
            "openjdk-17-jre-headless; macOS: brew install openjdk@17) or set JAVA_HOME, then run this again." >&2
        exit 1
    }
fi
touch .venv/.ready
