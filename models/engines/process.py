"""One engine per process: loading a model takes minutes and fills a device, so it stays until another one is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module

from models.engines.promise import Engine, EngineSpec
from models.identity import model_digest

# Imported when first asked for: each brings its library with it, which takes seconds.
ENGINES = {
    "vllm": "models.engines.vllm:VllmEngine",
    "transformers": "models.engines.transformers:TransformersEngine",
}

_running: tuple[int, EngineSpec, Engine] | None = None  # (process id, spec, engine)


def open_engine(spec: EngineSpec, on_start: Callable[[], None] | None = None) -> Engine:
    """The engine of this process: started at the first call, reused for an equal spec, closed first for another one,
    and where it was given other weights.

    on_start: called once an engine was constructed, not for one that ran already. Raises ValueError for an unknown kind,
    and where this host keeps another model or adapter in a folder than the spec names.
    """
    global _running
    if _running is not None and _running[0] != os.getpid():
        _running = None  # forked from a process with an engine: its threads and device are not ours
    if _running is not None and _running[1] == spec and not _running[2].dead and not _running[2].changed:
        return _running[2]
    close_engine()
    folders = [("model", spec.model, spec.digest)]
    for part, folder, digest in folders + [("adapter", adapter.folder, adapter.digest) for adapter in spec.adapters]:
        if digest and (found := model_digest(folder)) != digest:
            raise ValueError(f"{folder} on this host: expected the {part} {digest}, found {found}")
    module, _, name = ENGINES.get(spec.kind, spec.kind).partition(":")
    if not name:
        raise ValueError(f"engine kind: expected {', '.join(ENGINES)} or module:Class, found {spec.kind!r}")
    _running = (os.getpid(), spec, getattr(import_module(module), name)(spec))
    if on_start is not None:
        on_start()
    return _running[2]


def close_engine() -> None:
    """Close this process's engine, if it has one."""
    global _running
    if _running is not None and _running[0] == os.getpid():
        _running[2].close()
    _running = None
