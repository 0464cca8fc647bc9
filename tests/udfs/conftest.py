"""Real clips and the checkpoint for the tests of this room."""

from pathlib import Path

import av
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def spark(spark):
    """The session of all tests, with batches so small that a few clips make several."""
    key = "spark.sql.execution.arrow.maxRecordsPerBatch"
    usual = spark.conf.get(key)
    spark.conf.set(key, "8")
    yield spark
    spark.conf.set(key, usual)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The trained tiny model where it has been made, else the same model untrained."""
    trained = ROOT / "models/handwriting/checkpoint"
    if (trained / "config.json").exists():
        return str(trained)
    from models.handwriting import tiny

    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny.make(folder, seed=0)
    return str(folder)


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Paths of 28 real MP4 files, 2 s each, no two alike."""
    folder = tmp_path_factory.mktemp("clips")
    return [_write_clip(folder / f"clip{i:02}.mp4", i) for i in range(28)]


def _write_clip(path, seed, seconds=2, rate=6, size=96):
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=rate)
        stream.width = stream.height = size
        for _ in range(seconds * rate):
            picture = np.kron(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8))
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    return str(path)
