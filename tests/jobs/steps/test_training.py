"""What a training keeps beside its checkpoints."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from jobs.runtime.errors import UsageError
from jobs.steps.training import training_id


def test_a_training_keeps_its_name_and_half_of_the_names_is_one_line(tmp_path):
    first, second = (SimpleNamespace(record=SimpleNamespace(run_id=run_id)) for run_id in ("one", "two"))
    assert training_id(first, tmp_path, {"rate": 1}) == training_id(second, tmp_path, {"rate": 1}) == "one"
    assert training_id(second, tmp_path, {"rate": 2}) == "two"
    names = tmp_path / "training_ids.json"
    names.write_bytes(names.read_bytes()[:10])
    with pytest.raises(UsageError, match=f"{names}: expected a JSON document, found one that was cut short: delete it"):
        training_id(second, tmp_path, {"rate": 1})
