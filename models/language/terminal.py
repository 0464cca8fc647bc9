"""What a terminal is shown: models, files and their names may hold signs that move its cursor, colour it, or turn writing
round, to look like something else."""

from __future__ import annotations

import re

# Control signs but for line breaks (ECMA-48), and those that change the direction of writing (Unicode, annex 9).
_COMMANDS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """The text with the signs that command a terminal shown by their numbers."""
    return _COMMANDS.sub(
        lambda found: f"\\x{ord(found[0]):02x}" if found[0] < "\xff" else f"\\u{ord(found[0]):04x}", text
    )
