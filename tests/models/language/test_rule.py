"""A task's own rule: code of a site's, over text that a model wrote."""

from __future__ import annotations

import pytest

from models.language.rule import argued_by, code_of, load_rule


def odd(segment: str):
    """A rule as people write them."""
    return {"list": [segment], "none": None}[segment] if segment != "fine" else "a"


@pytest.mark.parametrize(
    ("segment", "label"),
    [("fine", "a"), ("unforeseen", None), ("list", None), ("none", None), ("", None), (None, None)],
)
def test_what_a_rule_cannot_take_argues_for_nothing(segment, label):
    assert argued_by(odd, segment) == label
    assert argued_by(None, segment) is None


def test_a_rules_code_is_that_of_its_file_whatever_its_comments(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    codes = []
    for number, text in enumerate(
        ("def f(s):\n    return s\n", "# why\ndef f( s ):\n    return s\n", "def f(s): return 1\n")
    ):
        (tmp_path / f"rule{number}.py").write_text(text)
        codes.append(code_of(f"rule{number}:f"))
    assert codes[0] == codes[1] != codes[2]
    with pytest.raises(ValueError, match="expected module:function that can be imported, found 'nowhere:f'"):
        load_rule("nowhere:f")
