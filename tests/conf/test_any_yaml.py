"""Given any YAML at all, then it is settings, or every mistake in it is named in a line."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from conf.sections import Settings
from conf.settings import SettingsError, load

SECTIONS = {name: list(getattr(field.annotation, "model_fields", {})) for name, field in Settings.model_fields.items()}
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
KNOWN = st.sampled_from([f"{section}.{key}" for section, keys in SECTIONS.items() for key in keys] + list(SECTIONS))
TAGS = [
    "!!int ",
    "!!float ",
    "!!bool ",
    "!!timestamp ",
    "!!map ",
    "!!seq ",
    "!!null ",
    "!!set ",
    "!!omap ",
    "!!pairs ",
    "&x ",
    "*x",
]
FRAGMENTS = st.sampled_from(
    [*"{}[],:&*!|>-?#'\"%@` \n\t\0\x85", "---", "!!binary", "<<: ", "2020-13-45", "0x_", "1:99", "\ufeff", "a", *TAGS]
)


def settings_or_mistakes(tmp_path, data: bytes, *overrides: str) -> None:
    conf = tmp_path / "site.yaml"
    conf.write_bytes(data)
    try:
        assert isinstance(load(str(conf), overrides), Settings)
    except SettingsError as error:
        lines = str(error).splitlines()
        assert lines and all(line.strip() for line in lines)


@given(st.lists(FRAGMENTS, max_size=12).map("".join))
@example("lake: {root: 2020-13-45}")
@example("!!timestamp x")
@example("!!int ''")
@example("!!float ''")
@example("rollout: {n: !!bool x}")
@example("!!omap x")
@example("rollout: {n: 0x_}")
@example("[" * 5000)
@example("{" * 5000)
@example("rollout: {n: " + "9" * 5000 + "}")
@example("? [a]\n: b")
@example("a: &a [*a]")
@example("rollout: &a {n: *a}")
@example("1: x\n2: {3: y}")
def test_any_text(tmp_path, text):
    settings_or_mistakes(tmp_path, text.encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=40))
@example(b"\xff\xfer\x00")
def test_any_bytes(tmp_path, data):
    settings_or_mistakes(tmp_path, data)


@given(st.dictionaries(KNOWN, VALUES, max_size=4))
def test_any_value_for_any_setting(tmp_path, values):
    settings_or_mistakes(tmp_path, b"", *[f"{key}={json.dumps(value)}" for key, value in values.items()])


@given(st.lists(FRAGMENTS | st.sampled_from(["rollout", "n", "=", "."]), max_size=8).map("".join))
@example("rollout.n=2020-13-45")
@example("rollout.n=" + "[" * 5000)
@example("rollout.n.m.o=1")
@example("." * 2000 + "=1")
def test_any_flag(tmp_path, text):
    settings_or_mistakes(tmp_path, b"", text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lake: {root: a}\nrollout: {n: 2}\nlake: {root: b}\n", "the key 'lake' is there twice, again in line 3"),
        ("decide: {threshold: yes}\n", "'decide.threshold': expected a number, found True"),
        ("ingest: {labels: {values: {a: no}}}\n", "expected text, found False: YAML takes yes, no, on and off"),
        ("rollout: {N: 2}\n", "unknown setting 'rollout.N'; the nearest valid one is 'rollout.n'"),
        ("qqq: 1\n", "unknown setting 'qqq'; there are "),
        ("rollout:\n\tn: 4\n", "found character '\\t' that cannot start any token in line 2"),
    ],
)
def test_what_yaml_would_take_in_silence_is_told(tmp_path, text, said):
    conf = tmp_path / "site.yaml"
    conf.write_text(text)
    with pytest.raises(SettingsError) as told:
        load(str(conf))
    assert said in str(told.value)


@pytest.mark.parametrize("times", [8, 30])
def test_a_file_that_names_itself_again_and_again_is_no_bomb(tmp_path, times):
    """Each line holds the one above it ten times: read, it would be larger than any memory."""
    lists = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, times)]
    merged = ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, times)]
    for lines in (lists, merged):
        settings_or_mistakes(tmp_path, ("\n".join(lines) + f"\nlake: {{root: *a{times - 1}}}\n").encode())
