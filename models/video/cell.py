"""The side of the picture that becomes one token, as a model folder tells it: plain JSON, no transformers on a driver."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# As transformers looks for what prepares clips; the first is a section of a file, the others are files of their own.
_SECTION = ("processor_config.json", "video_processor")
_FILES = ("video_preprocessor_config.json", "preprocessor_config.json")


def cell_of(folder: str) -> int:
    """Pixels: patch_size x merge_size of the folder's video processor. Raises ValueError naming the file and the field."""
    file, found = _video_processor(Path(folder))
    return _positive(file, found, "patch_size") * _positive(file, found, "merge_size")


def _video_processor(folder: Path) -> tuple[Path, dict[str, Any]]:
    name, section = _SECTION
    nested = _read(folder / name).get(section)
    if isinstance(nested, dict):
        return folder / name, nested
    for name in _FILES:
        if (folder / name).is_file():
            return folder / name, _read(folder / name)
    raise ValueError(f"{folder}: expected {' or '.join((_SECTION[0], *_FILES))} that tells how clips are prepared")


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file}: not readable as JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file}: expected an object, found {type(found).__name__}")
    return found


def _positive(file: Path, found: dict[str, Any], field: str) -> int:
    value = found.get(field)
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{file}: {field}: expected a positive number of pixels or patches, found {value!r}")
    return value
