"""Counts the bytes of tensors that live, operation by operation: what a device would hold, on a machine without one."""

from __future__ import annotations

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class Storages(TorchDispatchMode):
    """A context manager around some computation. peak: most bytes that lived at once of what was made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __enter__(self):
        self._resize = resize = torch.UntypedStorage.resize_

        def counted(storage, size):  # `fsdp` frees and fills storages in place
            before = storage.nbytes()
            resize(storage, size)
            if storage._cdata in self._sizes:
                self._sizes[storage._cdata] += size - before
                self._add(size - before)
            return storage

        torch.UntypedStorage.resize_ = counted
        return super().__enter__()

    def __exit__(self, *error):
        torch.UntypedStorage.resize_ = self._resize
        super().__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        for value in tree_iter((args, kwargs)):  # what comes from outside does not count
            self._note(value, 0)
        made = function(*args, **(kwargs or {}))
        for value in tree_iter(made):
            self._note(value, None)
        return made

    def _note(self, value, size: int | None) -> None:
        if not isinstance(value, torch.Tensor):
            return
        storage = value.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes() if size is None else size
            self._add(self._sizes[key])
            weakref.finalize(storage, self._gone, key)

    def _add(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)

    def _gone(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)
