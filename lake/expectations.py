"""Great Expectations over one wave: for each check of a contract, whether every row passes."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from functools import lru_cache
from types import ModuleType
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from schemas.checks import Check, Contract


class CheckError(RuntimeError):
    """An expectation could not run, or contradicts its predicate: a fault of the contract itself."""


def passes(check: Check) -> Column:
    """Whether a row passes; never NULL, because a predicate that is NULL is not met."""
    return F.coalesce(F.expr(f"({check.sql})"), F.lit(False))


def verdicts(staged: DataFrame, contract: Contract) -> dict[str, bool]:
    """Whether all rows pass, by name of the check; of no rows all do. Raises CheckError for a check that cannot run."""
    context = _context()
    import great_expectations as gx
    from great_expectations import expectations as gxe

    suite = gx.ExpectationSuite(name="contract")
    for check in contract:
        kind, arguments = check.expectation
        suite.add_expectation(getattr(gxe, kind)(**arguments, meta={"check": check.name}))
    named = {check.name: passes(check) for check in contract if check.expectation[1]["column"] == check.name}
    source = context.data_sources.add_or_update_spark(name="lake", persist=False)
    batch = source.add_dataframe_asset(name="staged").add_batch_definition_whole_dataframe("all")
    rows = {"dataframe": staged.withColumns(named)}
    # Verdicts only: counts and rows are the audit's own, and asking for them is a Spark job a check.
    validation = batch.get_batch(rows).validate(suite, result_format="BOOLEAN_ONLY")
    found = {}
    for outcome in validation.results:
        name = outcome.expectation_config.meta["check"]
        failure = next((entry for entry in (outcome.exception_info or {}).values() if isinstance(entry, dict)), None)
        if failure and failure.get("raised_exception"):
            raise CheckError(f"check {name} could not run: {failure.get('exception_message')}")
        found[name] = bool(outcome.success)
    return found


@lru_cache(maxsize=1)
def _context() -> Any:
    """One ephemeral context per process; usage statistics and progress bars off."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    late = {name: _Late(name) for name in ("altair", "scipy.stats") if name not in sys.modules}
    sys.modules.update(late)
    import great_expectations as gx

    for name in late:
        sys.modules.pop(name, None)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    return context


class _Late(ModuleType):
    """A module that is imported when it is first used: plots and distributions serve expectations that no contract names,
    and are half of what importing Great Expectations costs."""

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self.__name__), attribute)
