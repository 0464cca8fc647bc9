"""Typed settings: base.yaml, then the site's file, then --set, checked as a whole before anything starts.

This is the only code that reads YAML. Every mistake is reported at once, with its file or flag
and, for an unknown key, the nearest valid one.
"""

from __future__ import annotations

import difflib
import re
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from conf.sections import CONF, SLUG, Settings, Task
from conf.yaml_text import parse

_SHOWN = 200  # characters of a value in a message


class SettingsError(ValueError):
    """The configuration is wrong; the message lists every mistake, one a line."""


def load(conf: str | None = None, overrides: list[str] | tuple[str, ...] = ()) -> Settings:
    """Settings of one job. `conf`: the site's YAML file; `overrides`: "section.key=value" texts, values in YAML.

    Raises SettingsError with every mistake found.
    """
    merged, origin, mistakes = _layers(conf, overrides)
    if "labels" in merged:
        where = origin.get("labels", "base.yaml")
        mistakes.append(f"{where}: unknown setting 'labels'; the labels of a task are in labels/<task>.yaml")
    mistakes += _switches(merged, Settings, origin)
    site = None if conf is None else Path(conf).resolve().parent
    where = origin.get("task", "base.yaml")
    task, labels = _task(merged.get("task"), site, where, mistakes)
    stand_in = {"task": "x", "labels": {"a": "", "b": ""}}
    try:
        settings = Settings.model_validate(merged | {"task": task, "labels": labels or stand_in})
    except ValidationError as error:
        mistakes = [_explain(item, Settings, origin) for item in error.errors()] + mistakes
    else:
        mistakes += _contradictions(settings)
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    return settings


def origins(conf: str | None = None, overrides: list[str] | tuple[str, ...] = ()) -> dict[str, str]:
    """The file or flag that gave a setting, by its dotted name; what is not named has its default of base.yaml."""
    return _layers(conf, overrides)[1]


def _layers(
    conf: str | None, overrides: list[str] | tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """base.yaml with what lies on it, where each of that comes from, and what could not be read."""
    origin: dict[str, str] = {}
    mistakes: list[str] = []
    layers = [] if conf is None else [(conf, partial(_read, Path(conf)))]
    layers += [(_flag(text), partial(_parse, text)) for text in overrides]
    merged = _read(CONF / "base.yaml")
    for where, read in layers:
        try:
            merged = _merge(merged, read(), origin, where)
        except SettingsError as error:
            mistakes.append(str(error))
    return merged, origin, mistakes


def _switches(values: dict[str, Any], model: type[BaseModel], origin: dict[str, str], prefix: str = "") -> list[str]:
    """Switches in the place of numbers, which pydantic takes for 1 and 0."""
    found = []
    for name, field in model.model_fields.items():
        value, inner = values.get(name), field.annotation
        if isinstance(value, dict) and isinstance(inner, type) and issubclass(inner, BaseModel):
            found += _switches(value, inner, origin, f"{prefix}{name}.")
        elif isinstance(value, bool) and inner in (int, float, int | None, float | None):
            where = origin.get(f"{prefix}{name}", "base.yaml")
            found.append(f"{where}: '{prefix}{name}': expected a number, found {value}")
    return found


def _contradictions(settings: Settings) -> list[str]:
    """Settings that are fine alone and not together."""
    found = []
    asked, room = settings.rollout.max_tokens, settings.engine.max_model_len
    if asked >= room:
        found.append(
            f"rollout.max_tokens: expected less than engine.max_model_len={room}, the video included; found {asked}"
        )
    stall, decode = settings.engine.stall_seconds, settings.decode.timeout_seconds
    if stall <= decode:
        found.append(f"engine.stall_seconds: expected more than decode.timeout_seconds={decode:g}, found {stall:g}")
    least = 0.5
    if settings.labels.mode == "independent" and settings.decide.threshold < least:
        found.append(
            f"decide.threshold: expected at least {least}, for the labels of task {settings.task} are independent: one "
            f"applies from it on and is ruled out from 1 - it down; found {settings.decide.threshold:g}"
        )
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        value = parse(path.read_text()) or {}
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: expected a YAML file: {error}") from None
    except ValueError as error:
        raise SettingsError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(value, dict):
        raise SettingsError(f"{path}: expected sections of keys and values, found {type(value).__name__}")
    return value


def _flag(text: str) -> str:
    return f"--set {_shown(' '.join(text.split()))}"


def _shown(text: str) -> str:
    """As much of it as a message needs."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _parse(text: str) -> dict[str, Any]:
    """`section.key=value` as nested sections."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise SettingsError(f"{_flag(text)}: expected section.key=value, for example --set rollout.n=8")
    try:
        nested = parse(value)
    except ValueError as error:
        raise SettingsError(f"{_flag(text)}: the value is not readable as YAML: {error}") from None
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return nested


# A site's own words replace the whole mapping: merging them key by key could never remove one.
_WHOLE = {
    "ingest.labels.values",
    "ingest.labels.splits",
    "ingest.labels.facets",
    "ingest.texts.fields",
    "rollout.texts",
    "refine.rewards",
}


def _merge(base: dict, over: dict, origin: dict[str, str], where: str, prefix: str = "") -> dict:
    merged = dict(base)
    for key, value in over.items():
        path = f"{prefix}{key}"
        origin[path] = where
        both = isinstance(value, dict) and isinstance(base.get(key), dict) and path not in _WHOLE
        merged[key] = _merge(base[key], value, origin, where, f"{path}.") if both else value
    return merged


def _task(task: Any, site: Path | None, where: str, mistakes: list[str]) -> tuple[Any, dict | None]:
    """The name of a task and its label set: of the file that is named, or of labels/<task>.yaml beside the site's file or
    in the project. A path in the site's file goes from there, one given with --set from here."""
    if str(task).endswith((".yaml", ".yml")):
        path = (Path.cwd() if site is None or where.startswith("--set") else site) / str(task)
        if not path.is_file():
            mistakes.append(f"{where}: task: expected the file of a label set, found none: {path}")
            return "x", None
        value = _label_set(path, mistakes)
        return (value or {}).get("task", "x"), value
    if not re.fullmatch(SLUG, str(task)):
        return task, None  # which the model of the settings says, too
    folders = [each / "labels" for each in (site, CONF) if each is not None]
    found = next((path for each in folders if (path := each / f"{task}.yaml").is_file()), None)
    if found is None:
        known = sorted({file.stem for each in folders for file in each.glob("*.yaml")})
        wanted = " or ".join(str(each / f"{task}.yaml") for each in dict.fromkeys(folders))
        mistakes.append(
            f"{where}: task '{task}' needs a file with its labels, {wanted}; found those of {', '.join(known)}; the path of "
            "such a file will do, too"
        )
        return task, None
    value = _label_set(found, mistakes)
    if value and value["task"] != task:
        mistakes.append(f"{found}: expected task '{task}', found '{value['task']}'")
    return task, value


def _label_set(path: Path, mistakes: list[str]) -> dict | None:
    try:
        value = _read(path)
        Task.model_validate(value)
    except SettingsError as error:
        mistakes.append(str(error))
    except ValidationError as error:
        mistakes.extend(_explain(item, Task, {}, str(path)) for item in error.errors())
    else:
        return value
    return None


def _explain(error: Any, model: type[BaseModel], origin: dict[str, str], file: str = "base.yaml") -> str:
    parts = [str(part) for part in error["loc"]]
    key = _shown(".".join(parts))
    where = next((origin[".".join(parts[:n])] for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in origin), file)
    if error["type"] == "extra_forbidden":
        valid = _keys_at(model, parts[:-1])
        near = difflib.get_close_matches(parts[-1].lower(), valid, n=1, cutoff=0.5)
        listed = ", ".join(".".join([*parts[:-1], name]) for name in near or valid)
        told = f"the nearest valid one is '{listed}'" if near else f"there are {listed}"
        return f"{where}: unknown setting {key!r}; {told}"
    if error["type"] in ("model_type", "model_attributes_type"):
        return f"{where}: {key!r} is a section: expected {key}.<setting>, found {_shown(repr(error['input']))}"
    if isinstance(error["input"], bool) and error["type"] == "string_type":
        found = error["input"]
        return (
            f"{where}: {key!r}: expected text, found {found!r}: YAML takes yes, no, on and off for switches, quote them"
        )
    message = error["msg"][0].lower() + error["msg"][1:]
    return f"{where}: {key!r}: {message}, found {_shown(repr(error['input']))}"


def _keys_at(model: type[BaseModel], parts: list[str]) -> list[str]:
    for part in parts:
        field = model.model_fields.get(part)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return [name for name in model.model_fields if not (model is Settings and name == "labels")]
