"""Which label a segment of a trace argues for, by a task's own rule (`rule` in its file of labels)."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from importlib import import_module

from models import identity

# From a segment of a trace (what was observed, what was thought) to the label that it argues for, None for none.
Rule = Callable[[str], str | None]


def load_rule(name: str) -> Rule:
    """The rule that a task names as module:function. Raises ValueError where there is none."""
    module, _, function = name.partition(":")
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"rule: expected module:function that can be imported, found {name!r}: {error}") from None


def code_of(name: str) -> str:
    """Digest of the file that a rule stands in, comments and layout apart: what learned from a rule needs that very one.

    What the rule takes from other files is not seen: let all that decides stand in one. Raises ValueError without a rule.
    """
    return identity.digest(ast.dump(ast.parse(inspect.getsource(inspect.getmodule(load_rule(name))))))  # type: ignore[arg-type]


def argued_by(rule: Rule | None, segment: str | None) -> str | None:
    """What a segment argues for; None without a rule, without a segment, and where a site's rule cannot take what a model
    wrote: one odd trace is no reason to score none."""
    if not rule or not segment:
        return None
    try:
        found = rule(segment)
    except Exception:  # whatever it is, of code that is not ours, over text that nobody has read
        return None
    return found if isinstance(found, str) else None
