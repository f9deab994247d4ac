"""Folders on disk and of object stores by one interface: fsspec's, and what it leaves to each store made alike."""

import datetime as dt
import os
from collections.abc import Mapping
from typing import Any

# A look at the store should end before a tick of the sensor does: the usual is five tries of five seconds and more.
QUICKLY = {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 2}}
CHANGED = ("mtime", "LastModified", "last_modified", "updated")  # of local files, S3, Azure and Google


class StoreError(RuntimeError):
    """An object store can't be asked; the text names it, says why and what to do."""


def file_system(address: str) -> tuple[Any, str]:
    """Fsspec's file system of a folder, which remembers no listing, and the folder's name there.

    Raises:
        StoreError: if the package that knows such stores is not installed.
    """
    import fsspec

    try:
        options = {"config_kwargs": QUICKLY} if address.startswith(("s3://", "s3a://")) else {}
        files, folder = fsspec.url_to_fs(address, **options)
    except (ImportError, ValueError) as error:
        raise StoreError(
            f"{address} can't be listed: {error}. For S3 run `make setup` in the checkout, or "
            "`.venv/bin/uv pip install -e '.[s3]'`"
        ) from error
    files.invalidate_cache()
    return files, folder.rstrip("/")


def changed_at(info: Mapping[str, Any]) -> dt.datetime:
    """When a file was last changed, as its listing says.

    Raises:
        StoreError: if it does not say.
    """
    at = next((info[name] for name in CHANGED if info.get(name) is not None), None)
    if at is None:
        raise StoreError(
            f"{info.get('name')}: its store does not say when it was changed, so it can't be told from an earlier one"
        )
    if isinstance(at, str):
        at = dt.datetime.fromisoformat(at)
    return at if isinstance(at, dt.datetime) else dt.datetime.fromtimestamp(at, dt.UTC)


def s3_endpoint(environ: Mapping[str, str] = os.environ) -> str | None:
    """Address of a store of one's own that speaks S3; None for Amazon's."""
    return environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")


def deltalake_options(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What deltalake is told of an object store beyond what it reads of AWS_ and other variables by itself."""
    safe = {"aws_conditional_put": "etag"}  # S3 refuses a commit whose number is taken
    endpoint = s3_endpoint(environ)
    if endpoint is None:
        return safe
    return {**safe, "AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": str(endpoint.startswith("http://")).lower()}
