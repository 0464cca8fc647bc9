"""Changes of settings that make something fit: one that is enough, else as few and as mild ones as are needed."""

from __future__ import annotations

from conf.settings import load
from jobs.steps.estimate import fitting

SETTINGS = load(None, ["refine.micro_batch=8", "training.processes=1", "refine.kv_cache_mb=8192"])
PIECES = fitting.smaller_pieces("refine", SETTINGS)
PROCESSES = fitting.more_processes(SETTINGS)


def cost(settings) -> float:
    shards = settings.training.processes if settings.training.parallel == "fsdp" else 1
    return 100 / shards + 10 * settings.refine.micro_batch  # 180 as they are


def found(limit: float):
    return fitting.that_fit(SETTINGS, [PIECES, PROCESSES], lambda settings: cost(settings) <= limit)


def test_what_is_enough_alone_is_told_of_each_kind_the_mildest():
    assert found(150) == ([{"refine.micro_batch": 5}, {"training.parallel": "fsdp", "training.processes": 2}], True)
    assert found(112) == ([{"refine.micro_batch": 1}, {"training.parallel": "fsdp", "training.processes": 4}], True)
    assert found(100) == ([{"training.parallel": "fsdp", "training.processes": 8}], True)


def test_what_is_needed_together_costs_as_little_as_can_be():
    """Fewest processes first, for pieces cost time alone; then pieces as large as these allow."""
    assert found(45) == ([{"refine.micro_batch": 2}, {"training.parallel": "fsdp", "training.processes": 4}], False)


def test_nothing_is_told_where_nothing_helps():
    assert found(5) == ([], False)


def test_settings_are_changed_by_name_and_the_others_stay():
    changed = fitting.changed(SETTINGS, {"refine.micro_batch": 3, "training.parallel": "fsdp"})
    assert (changed.refine.micro_batch, changed.training.parallel) == (3, "fsdp")
    assert (
        changed.refine.model_copy(update={"micro_batch": 8}) == SETTINGS.refine and SETTINGS.training.parallel == "ddp"
    )


def test_what_is_tried():
    assert [{"refine.micro_batch": size} for size in (7, 6, 5, 4, 3, 2, 1)] == PIECES
    assert [change["training.processes"] for change in PROCESSES] == [2, 4, 8, 16, 32, 64]
    eight = load(None, ["training.processes=8"])
    assert fitting.more_processes(eight)[0] == {"training.parallel": "fsdp", "training.processes": 8}
    shared = load(None, ["training.processes=8", "training.parallel=fsdp"])
    assert fitting.more_processes(shared)[0] == {"training.parallel": "fsdp", "training.processes": 16}
    assert fitting.halves("x", 100, 20) == [{"x": 50}, {"x": 25}]
    assert fitting.other_cache("x", 4 << 30, 100 << 20) == [{"x": 3072}, {"x": 2048}, {"x": 1024}, {"x": 100}]
    assert fitting.other_cache("x", 64 << 20, 100 << 20) == [{"x": 100}]  # a larger one, which holds a sequence
    assert fitting.other_cache("x", 16 << 20, 1) == []
