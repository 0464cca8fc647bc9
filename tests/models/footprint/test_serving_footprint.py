"""What an engine is said to hold and to draw: against vLLM's own figures, and by hand."""

from __future__ import annotations

import pytest
from public import qwen_7b

from models.footprint import serving
from models.footprint.devices import BANDWIDTH_SHARE, GIB, PREFILL_SHARE, device_of
from models.footprint.serving import WORKSPACE_BYTES, Draw, Serving
from models.footprint.shape import shape_of

H100 = device_of("h100")
ENGINE = Serving("bfloat16", None, 16384, 256)


@pytest.fixture(scope="module")
def shape(tmp_path_factory):
    return shape_of(qwen_7b(tmp_path_factory.mktemp("7b")))


def test_a_token_takes_as_much_cache_as_vllm_says(vllm_engine, random_model):
    """vLLM cuts its cache into blocks of some tokens, as many as go into the bytes that it was given: all of 1 GiB here."""
    config = vllm_engine._engine.vllm_config.cache_config
    block = serving.kv_bytes(shape_of(random_model), "float32", config.block_size)
    assert config.num_gpu_blocks == GIB // block
    parts = serving.parts(shape_of(random_model), Serving("float32", None, 512, 64), device_of("cpu"))
    assert parts["engine: KV cache"] == GIB


def test_a_token_of_qwen_7b_takes_56_kib(shape):
    assert serving.kv_bytes(shape, "bfloat16", 1) == 2 * 28 * 4 * 128 * 2 == 56 << 10


def test_an_engine_that_is_told_nothing_takes_what_is_left(shape):
    parts = serving.parts(shape, ENGINE, H100)
    assert parts["engine: weights"] == 2 * 8_292_166_656
    assert sum(parts.values()) + H100.context == H100.usable
    told = serving.parts(shape, Serving("bfloat16", GIB, 16384, 256), H100)
    assert told == parts | {"engine: KV cache": GIB} and told["engine: workspace"] == WORKSPACE_BYTES
    two = serving.parts(shape, Serving("bfloat16", GIB, 16384, 256, gpus=2), H100)
    assert two["engine: weights"] == 8_292_166_656


def test_rollouts_of_a_video_share_its_prompt(shape):
    cache = 100 * serving.kv_bytes(shape, "bfloat16", 1000 + 500)
    assert serving.together(shape, ENGINE, cache, Draw(1, 1, 1000, 500, 0)) == 100
    assert serving.together(shape, ENGINE, cache, Draw(1, 4, 1000, 500, 0)) == 200
    assert serving.together(shape, ENGINE, 10 * cache, Draw(1, 4, 1000, 500, 0)) == ENGINE.sequences
    assert serving.together(shape, ENGINE, 1, Draw(1, 4, 1000, 500, 0)) == 1


def test_drawing_is_prefill_once_a_video_and_a_step_a_token(shape):
    """By hand: 10 videos x 4 rollouts run at once; each of 100 steps reads weights and cache."""
    prefill, decoding = serving.seconds(shape, ENGINE, H100, Draw(10, 4, 1000, 100, 4000))
    text = 28 * 233_057_792 + 3584
    flops = 2 * text * 1000 + 2 * 28 * 3584 * 1000**2 + 2 * 676_550_144 * 4000
    assert prefill == pytest.approx(10 * flops / (989e12 * PREFILL_SHARE), rel=1e-6)
    read = 2 * 8_292_166_656 + 40 * (56 << 10) * (1000 + 50)
    assert decoding == pytest.approx(100 * read / (3350e9 * BANDWIDTH_SHARE), rel=1e-6)
    assert serving.seconds(shape, ENGINE, H100, Draw(0, 4, 1000, 100, 4000)) == (0.0, 0.0)


def test_many_sequences_cost_arithmetic(shape):
    """Where the device is slow at arithmetic, reading hides behind it."""
    slow = device_of("cpu")
    _, decoding = serving.seconds(shape, Serving("float32", 64 * GIB, 4096, 256), slow, Draw(64, 4, 100, 10, 0))
    each = 2 * (28 * 233_057_792 + 3584) + 2 * 28 * 3584 + 2 * 152064 * 3584
    assert decoding == pytest.approx(10 * 256 * each / (slow.flops * PREFILL_SHARE), rel=1e-6)


def test_devices_are_named():
    with pytest.raises(ValueError, match="device: expected one of h100, h200, a100, l40s, cpu, found b300"):
        device_of("b300")
    assert device_of("cpu", 2).memory == device_of("cpu").memory // 2 and not device_of("cpu").is_gpu
