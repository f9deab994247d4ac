"""An object store for tests: moto's server, which speaks S3, in a process of its own."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pdm_assets_tests.ports import free_ports

BUCKET = "plant"


@contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, str]]:
    """A server with an empty bucket; gives the variables by which every client of S3 finds it."""
    import boto3
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()  # they remember the server of before
    (port,) = free_ports(1)
    environ = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "AKIATESTS",
        "AWS_SECRET_ACCESS_KEY": "secret-of-tests",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with (folder / "moto.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert server.poll() is None, (folder / "moto.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "moto's server does not answer"
            time.sleep(0.1)
        client = boto3.client(
            "s3",
            endpoint_url=environ["AWS_ENDPOINT_URL"],
            aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
            region_name=environ["AWS_REGION"],
        )
        client.create_bucket(Bucket=BUCKET)
        client.close()
        yield environ
    finally:
        server.kill()
        server.wait()
