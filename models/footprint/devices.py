"""Devices by name, and what of a device's peak is counted on. Every number here is told with an estimate."""

from __future__ import annotations

import os
from dataclasses import dataclass

GIB = 1 << 30

# Shares of the peak that are counted on, from what is usually seen; a measured wave replaces all three for rollouts.
PREFILL_SHARE = 0.5  # of FLOP/s: large matrix products
TRAINING_SHARE = 0.35  # of FLOP/s: small micro-batches, weights cast and gathered (PaLM, 2204.02311, reports 0.46)
BANDWIDTH_SHARE = 0.6  # of bandwidth while decoding: small kernels, the scheduler and the sampler between the steps
USABLE = 0.92  # of the memory: the rest is lost between blocks that no longer fit (vLLM's own default share, too)
CONTEXT_BYTES = GIB  # of each process: CUDA's context, kernels, the buffers of NCCL and cuBLAS


@dataclass(frozen=True)
class Device:
    """memory: bytes, as the device itself reports them; flops: dense bf16 FLOP/s; bandwidth: bytes/s. Both at their peak."""

    name: str
    memory: int
    flops: float
    bandwidth: float

    @property
    def usable(self) -> int:
        return int(self.memory * USABLE)

    @property
    def is_gpu(self) -> bool:
        return self.name != "cpu"

    @property
    def context(self) -> int:
        return CONTEXT_BYTES if self.is_gpu else 0


def _gpu(name: str, mib: int, tflops: float, gb_per_s: float) -> Device:
    return Device(name, mib << 20, tflops * 1e12, gb_per_s * 1e9)


# Memory as nvidia-smi reports it; speeds from NVIDIA's data sheets, without sparsity.
_GPUS = (
    _gpu("h100", 81559, 989, 3350),  # "H100 Tensor Core GPU" data sheet, SXM5, 80 GB HBM3
    _gpu("h200", 143771, 989, 4800),  # "H200 Tensor Core GPU" data sheet, SXM5, 141 GB HBM3e
    _gpu("a100", 81920, 312, 2039),  # "A100 Tensor Core GPU" data sheet, SXM4, 80 GB HBM2e
    _gpu("l40s", 46068, 362, 864),  # "L40S GPU" data sheet, 48 GB GDDR6 with ECC
)
DEVICES = (*(gpu.name for gpu in _GPUS), "cpu")
_CORE_FLOPS = 5e10  # assumed: 16 float32 multiply-adds a cycle at 1.6 GHz (AVX2), well below a core's peak
_HOST_BANDWIDTH = 2e10  # assumed: two channels of DDR4, shared by all cores


def device_of(name: str, processes: int = 1) -> Device:
    """A device of the table; "cpu": this host, of which each of so many processes has its part."""
    for gpu in _GPUS:
        if gpu.name == name:
            return gpu
    if name != "cpu":
        raise ValueError(f"device: expected one of {', '.join(DEVICES)}, found {name}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = os.cpu_count() or 1
    return Device("cpu", memory // processes, cores * _CORE_FLOPS / processes, _HOST_BANDWIDTH / processes)


def assumptions() -> dict[str, float]:
    """What an estimate rests on beside the device's own figures."""
    return {
        "prefill_share_of_flops": PREFILL_SHARE,
        "training_share_of_flops": TRAINING_SHARE,
        "decoding_share_of_bandwidth": BANDWIDTH_SHARE,
        "usable_share_of_memory": USABLE,
        "context_bytes": CONTEXT_BYTES,
    }
