"""An S3 server on loopback, and what makes clients find it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from support_wait import until

from logstore.broker.data_dir import _free_port as free_port
from logstore.process import child

BUCKET = "snapshots"


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """A server with an empty bucket; gives the environment of its clients, which is that of this process meanwhile."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    process = child.spawn(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], output=subprocess.DEVNULL
    )
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        until("the S3 server answers", lambda: _answers(url))
        httpx.put(f"{url}/{BUCKET}", trust_env=False, timeout=60).raise_for_status()
        yield environment
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        process.kill()
        process.wait(90)


def _answers(url: str) -> bool:
    try:
        return bool(httpx.get(url, trust_env=False, timeout=60))
    except httpx.TransportError:
        return False
