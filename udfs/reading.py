"""Bytes of videos by URI, inside decoder children: what cannot be read is refused with a reason like any other file.

A child imports the module of its function anew: nothing heavy may be imported here.
"""

from __future__ import annotations

import hashlib
import re

from lake import storage
from models.video.clip import Clip
from models.video.container import Limits, MediaError
from models.video.frames import FrameSpec, sample

_ESCAPED_BYTE = re.compile(r"\\x[89a-f][0-9a-f]")


def read(uri: str, limits: Limits) -> bytes:
    """The bytes behind a URI. Raises MediaError: not_found, bad_name, too_large (before reading it), unreachable."""
    try:
        return storage.read_bytes(uri, limits.max_bytes)
    except FileNotFoundError as error:
        if _ESCAPED_BYTE.search(uri):  # as storage.walk spells names that are not UTF-8
            raise MediaError("bad_name", f"a file name must be UTF-8, rename it: {uri}") from error
        raise MediaError("not_found", f"no such file: {uri}") from error
    except storage.TooLarge as error:
        raise MediaError("too_large", str(error)) from error
    except Exception as error:  # permissions, network, an object store's own errors
        raise MediaError("unreachable", f"{uri}: {type(error).__name__}: {error}") from error


def read_video(uri: str, video_id: str, limits: Limits) -> bytes:
    """The bytes behind a URI, if they still are the video of that id. Raises MediaError: changed, and what `read` raises.

    An id that is no content hash ("ext:...") is not checked: nobody has seen its bytes.
    """
    data = read(uri, limits)
    if len(video_id) == 64 and hashlib.sha256(data).hexdigest() != video_id:
        raise MediaError("changed", f"{uri} no longer holds the content that was ingested; ingest it again")
    return data


def sample_video(uri: str, video_id: str, spec: FrameSpec, limits: Limits) -> Clip:
    """`frames.sample` of a video's bytes."""
    return sample(read_video(uri, video_id, limits), spec, limits)
