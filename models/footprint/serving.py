"""What one engine needs and how long it takes to draw rollouts: vLLM with paged KV cache and continuous batching."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from models.engines.vllm_start import CPU_KV_CACHE_BYTES
from models.footprint.devices import BANDWIDTH_SHARE, GIB, PREFILL_SHARE, Device
from models.footprint.flops import forward
from models.footprint.memory import Parts
from models.footprint.shape import Shape

CACHE = "engine: KV cache"  # among the parts
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
WORKSPACE_BYTES = 2 * GIB  # of an engine on a GPU: its CUDA graphs, and activations of one step of its scheduler


@dataclass(frozen=True)
class Serving:
    """As promise.EngineSpec: kv_cache_bytes on each GPU, None: what vLLM takes by itself; length: tokens of the longest
    sequence; sequences: decoded together; gpus: that hold the model together."""

    dtype: str
    kv_cache_bytes: int | None
    length: int
    sequences: int
    gpus: int = 1


@dataclass(frozen=True)
class Draw:
    """Videos to draw rollouts of, n each. prompt, completion: tokens of one; patches: of a video, before they are merged."""

    videos: float
    n: int
    prompt: int
    completion: float
    patches: int


def kv_bytes(shape: Shape, dtype: str, tokens: int) -> int:
    """Keys and values of so many tokens in every layer: 2 x layers x kv heads x head size x bytes."""
    return 2 * shape.layers * shape.keys * BYTES[dtype] * tokens


def longest(shape: Shape, serving: Serving) -> int:
    """Bytes of cache on each GPU that a sequence of the full length takes: with less vLLM does not start."""
    return ceil(kv_bytes(shape, serving.dtype, serving.length) / serving.gpus)


def weights(shape: Shape, serving: Serving) -> int:
    """Bytes on each GPU; quantised ones as they are stored."""
    held = shape.stored if shape.quantization and shape.stored else shape.parameters * BYTES[serving.dtype]
    return ceil(held / serving.gpus)


def parts(shape: Shape, serving: Serving, device: Device) -> Parts:
    """What an engine holds on each of its devices as long as it lives; adapters are left out."""
    held = weights(shape, serving)
    workspace = WORKSPACE_BYTES if device.is_gpu else 0
    kv = serving.kv_cache_bytes
    if kv is None:
        kv = max(0, device.usable - held - workspace - device.context) if device.is_gpu else CPU_KV_CACHE_BYTES
    return {"engine: weights": held, CACHE: kv, "engine: workspace": workspace}


def together(shape: Shape, serving: Serving, kv_cache: int, draw: Draw) -> int:
    """How many sequences run at once: as the settings say, or as many as the cache holds when all are at their end.

    Rollouts of one video share its prompt. kv_cache: bytes on each GPU.
    """
    each = kv_bytes(shape, serving.dtype, 1) * (draw.prompt / draw.n + draw.completion) / serving.gpus
    return max(1, min(serving.sequences, int(kv_cache / max(each, 1))))


def seconds(shape: Shape, serving: Serving, device: Device, draw: Draw) -> tuple[float, float]:
    """Prefill and decoding, by arithmetic, of one engine.

    Prefill: FLOP at PREFILL_SHARE of the peak, once a video. Decoding: every step reads the weights and the cache of what
    runs, at BANDWIDTH_SHARE of the peak, and gives each sequence one token (Pope et al. 2211.05102, section 2); where more
    run than that hides, FLOP count. Left out: what stands behind a trace (labels), frames to decode, the engine's start.
    """
    sequences = draw.videos * draw.n
    if not sequences:
        return 0.0, 0.0
    prefill = draw.videos * forward(shape, draw.prompt, 0, draw.patches) / (device.flops * serving.gpus * PREFILL_SHARE)
    width = min(together(shape, serving, parts(shape, serving, device)[CACHE], draw), ceil(sequences))
    cache = kv_bytes(shape, serving.dtype, 1) * (draw.prompt + draw.completion / 2) / serving.gpus
    reading = (weights(shape, serving) + width * cache) / (device.bandwidth * BANDWIDTH_SHARE)
    computing = width * forward(shape, 1, 1, 0) / (device.flops * serving.gpus * PREFILL_SHARE)
    return prefill, sequences * draw.completion / width * max(reading, computing)
