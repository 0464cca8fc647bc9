"""What the documents promise to show is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def test_every_test_that_a_document_names_is_there():
    named = {
        (path, name)
        for document in (PROJECT / "docs").glob("*.md")
        for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", document.read_text())
    }
    assert len(named) > 30
    for path, name in sorted(named):
        functions = {
            node.name for node in ast.walk(ast.parse((PROJECT / path).read_text())) if isinstance(node, ast.FunctionDef)
        }
        assert name in functions, f"{path}::{name}"
