"""Planted faults: each still fits the code that it is planted in. Whether a test sees it, `make mutants` tells."""

from __future__ import annotations

import pytest

from benchmarks.mutants import FAULTS, PROJECT


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.title.replace(" ", "_"))
def test_a_fault_has_one_place_and_tests_that_exist(fault):
    assert (PROJECT / fault.file).read_text().count(fault.piece) == 1
    assert (PROJECT / fault.tests.partition(" ")[0]).is_file()
