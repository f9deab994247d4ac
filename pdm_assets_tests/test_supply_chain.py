"""What comes from others: pinned with hashes, asked about, and never unpickled."""

import ast
import importlib.util
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import pdm_assets

PACKAGE = Path(pdm_assets.__file__).parent
ROOT = PACKAGE.parent
LOCKS = [ROOT / "requirements.lock", ROOT / "requirements-uv.lock"]
PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "cPickle"}
# of Spark, NumPy, pandas and torch: what pickles, or ships Python code to where it is unpickled
PICKLING = {"udf", "pandas_udf", "mapInPandas", "mapInArrow", "applyInPandas", "foreach", "read_pickle", "to_pickle", "rdd"}
# The function that scores goes to the engine of the same run, in memory: PySpark's mapInArrow pickles it.
IN_MEMORY = {"models/scoring.py", "engine/duckdb/session.py"}
PICKLE_START = re.compile(rb"\x80[\x02-\x05]|\x28lp0|c\w+\n\w+\n")


@pytest.fixture
def audit():
    spec = importlib.util.spec_from_file_location("audit", ROOT / "scripts" / "audit.py")
    audit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(audit)
    return audit


@pytest.fixture
def osv():
    """A server that answers as OSV does: of the first package it knows two, of others nothing; or what it is told to."""

    class Osv(BaseHTTPRequestHandler):
        said: bytes | None = None
        asked: list[dict] = []  # noqa: RUF012

        def do_POST(self):
            self.asked += json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            results = [{"vulns": [{"id": "PYSEC-1"}, {"id": "GHSA-2"}]}] + [{}] * (len(self.asked) - 1)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"results": results}).encode() if self.said is None else self.said)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Osv) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", Osv
        server.shutdown()


def test_nobody_is_told_to_install_from_an_index_what_is_not_there():
    """Whoever registers the name there would be installed: it is in no index, only in a checkout."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*"), *PACKAGE.rglob("*.py")]
    texts = {path: path.read_text() for path in pages if path.is_file()}
    assert len(texts) > 50
    told = re.compile(r"pdm-assets\[|install\s+(-\S+\s+)*['\"]?pdm[-_]assets\b(?!\.)")
    assert [path for path, text in texts.items() if told.search(text)] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_pin_has_hashes_and_no_index_is_named(lock, audit):
    lines = lock.read_text().splitlines()
    starts = [n for n, line in enumerate(lines) if line and not line.startswith((" ", "#"))]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        assert audit.PIN.match(lines[start]), lines[start]  # no -i, --find-links, URL or editable
        hashes = [line for line in lines[start + 1 : end] if line.strip()]
        assert hashes
        assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}( \\)?", line) for line in hashes), lines[start]
    assert len(audit.pins(lock.read_text())) == len(starts)
    assert "://" not in lock.read_text()


def test_the_pins_are_read_with_and_without_extras_and_markers(audit):
    text = 'a-b==1.0 \\\n    --hash=sha256:0\nc[d]==2.0rc1 ; python_version < "4" \\\n    --hash=sha256:1\n'
    assert audit.pins(text) == [("a-b", "1.0"), ("c", "2.0rc1")]


def test_what_is_known_of_a_pin_is_said_and_fails(audit, osv, capsys):
    url, server = osv
    assert audit.main(url) == 1
    first = audit.pins(LOCKS[0].read_text())[0]
    assert f"{first[0]}=={first[1]}: https://osv.dev/PYSEC-1, https://osv.dev/GHSA-2" in capsys.readouterr().out
    assert server.asked[0] == {"package": {"name": first[0], "ecosystem": "PyPI"}, "version": first[1]}
    assert "uv" in {query["package"]["name"] for query in server.asked}


@pytest.mark.parametrize("said", [b"<html>a proxy's page</html>", b"{}", b'{"results": []}', b"[]"])
def test_without_osv_it_is_skipped_and_says_why(audit, osv, capsys, said):
    url, server = osv
    server.said = said
    for address in (url, "http://127.0.0.1:1"):  # nobody listens on port 1
        assert audit.main(address) == 0
        assert capsys.readouterr().out.startswith(f"skipped: {address} can't be asked")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_pickles(path):
    if str(path.relative_to(PACKAGE)) in IN_MEMORY:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not PICKLES & {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in PICKLES
            assert not PICKLING & {name.name for name in node.names}
        elif isinstance(node, ast.Attribute):
            assert node.attr not in PICKLING | {"allow_pickle"}
        elif isinstance(node, ast.keyword):
            assert node.arg not in {"allow_pickle", "shell"}


def test_a_saved_model_holds_no_pickle(tree):
    files = [
        path for path in tree.pipeline.folder.rglob("*") if path.is_file() and path.suffix != ".crc" and path.name != "_SUCCESS"
    ]
    assert {path.suffix for path in files} == {".txt", ".parquet"}
    for path in files:
        assert not PICKLE_START.match(path.read_bytes())
        if path.suffix == ".parquet":
            assert path.read_bytes().startswith(b"PAR1")
        else:
            json.loads(path.read_text())


def test_setup_left_the_bytecode_of_what_a_run_imports():
    # Where PYTHONDONTWRITEBYTECODE is set nothing else would leave it, and each run would compile 4,600 modules.
    for name in ("dagster", "pyspark.sql", "pdm_assets.definitions"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert Path(spec.cached or "").is_file(), f"{name}: run `make setup`"
