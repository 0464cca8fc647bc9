"""A small table, ways to land rows in it, and a real S3 server process."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from lake import storage
from lake.catalog import Lake, create_all


@pytest.fixture(scope="session")
def s3_root():
    """s3://bucket on a moto server of our own; the client that storage keeps is made anew for it and dropped after."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("s3_server.py")), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    patch = pytest.MonkeyPatch()
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        patch.setenv(name, value)
    patch.delenv("AWS_PROFILE", raising=False)
    storage.client.cache_clear()
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, "the S3 server ended by itself"
                time.sleep(0.2)
        storage.client().create_bucket(Bucket="lake")
        yield "s3://lake"
    finally:
        server.terminate()
        server.wait()
        storage.client.cache_clear()
        patch.undo()


@pytest.fixture(params=["disk", "s3"])
def anywhere(request, tmp_path):
    """A fresh root on a local disk and on S3."""
    if request.param == "s3":
        return storage.join(request.getfixturevalue("s3_root"), tmp_path.name)
    return str(tmp_path / "lake")


@pytest.fixture
def before_the_put(monkeypatch):
    """before_the_put(module, action): the action happens once, between the look and the next put of lake.<module>."""

    def arrange(module, action):
        put, waiting = module._put, [action]

        def late(*arguments):
            while waiting:
                waiting.pop()()
            return put(*arguments)

        monkeypatch.setattr(module, "_put", late)

    return arrange


@pytest.fixture(scope="module")
def every_table(spark, tmp_path_factory):
    root = tmp_path_factory.mktemp("waves") / "lake"
    create_all(str(root))
    return Lake(str(root), lambda: spark)


@pytest.fixture
def lake(every_table):
    """A lake with every table, and nothing in staging."""
    storage.delete(storage.join(every_table.root, "staging"))
    return every_table
