"""What lies at a source: every file below a folder, an s3:// prefix or a glob, listed side by side."""

from __future__ import annotations

import glob
import os
import queue
import re
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from lake.storage import Entry, bucket_key, client, doing, entry_of, exists, local_path

_LISTERS = 16  # folders or ranges of keys that are listed side by side
_CHUNKS_AHEAD = 64  # chunks of entries that listers may be ahead of their reader


def walk(source: str) -> Iterator[Entry]:
    """Every file below a folder, matching a glob (*, ?, [..], and ** for any depth), or the one file named; in no order.

    Folders (on an object store: ranges of keys) are listed side by side, and no more is held than the reader is behind.
    Hidden names are included: real ids begin with '_' and '-'. A link is a file of its own; folders behind links are
    walked only where the source itself names one. A glob that reaches one folder in two ways, through a link, may list its
    files twice. Raises FileNotFoundError when nothing is there, StoreError for a folder that cannot be read.
    """
    path = local_path(source)
    if path is None:
        yield from _walk_s3(source)
        return
    if path.exists():
        yield from _walk_path(path)
        return
    walked: set[Path] = set()  # a glob can match a folder and what is in it
    found = False
    for root in map(Path, glob.iglob(str(path), recursive=True, include_hidden=True)):
        place = root.resolve() if root.is_dir() else root.parent.resolve()
        if walked.isdisjoint((place, *place.parents)):
            for entry in _walk_path(root):
                found = True
                yield entry
        if root.is_dir():
            walked.add(place)
    if not found:
        raise FileNotFoundError(source)


# What a lister hands on: a chunk of entries, and places further down that others may list.
_Listed = Iterator[tuple[list[Entry], list[Any]]]


def _side_by_side(places: list[Any], list_one: Callable[[Any], _Listed]) -> Iterator[Entry]:
    """The entries of all places and of the places found in them."""
    chunks: queue.Queue[tuple[list[Entry], list[Any], BaseException | None, bool]] = queue.Queue(_CHUNKS_AHEAD)
    left = threading.Event()  # the reader went away

    def hand_on(entries: list[Entry], deeper: list[Any], error: BaseException | None, ended: bool) -> bool:
        while not left.is_set():
            try:
                chunks.put((entries, deeper, error, ended), timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def work(place: Any) -> None:
        try:
            for entries, deeper in list_one(place):
                if not hand_on(entries, deeper, None, False):
                    return
            hand_on([], [], None, True)
        except BaseException as error:
            hand_on([], [], error, True)

    with ThreadPoolExecutor(_LISTERS, thread_name_prefix="listing") as pool:
        try:
            for place in places:
                pool.submit(work, place)
            waiting = len(places)
            while waiting:
                entries, deeper, error, ended = chunks.get()
                if error is not None:
                    raise error
                for place in deeper:
                    pool.submit(work, place)
                waiting += len(deeper) - ended
                yield from entries
        finally:
            left.set()
            pool.shutdown(cancel_futures=True)


def _walk_path(path: Path) -> Iterator[Entry]:
    if path.is_dir():
        yield from _side_by_side([path.resolve()], _list_folder)
    elif entry := entry_of(path):
        yield entry


def _list_folder(folder: Path) -> _Listed:
    with doing("listed", str(folder)), os.scandir(folder) as found:
        entries: list[Entry] = []
        deeper: list[Path] = []
        for item in found:
            if item.is_dir(follow_symlinks=False):
                deeper.append(Path(item.path))
            elif not item.is_dir() and (entry := entry_of(Path(item.path))):  # a folder behind a link is not walked
                entries.append(entry)
            if len(entries) >= 1000:
                yield entries, deeper
                entries, deeper = [], []
        yield entries, deeper


def _walk_s3(source: str) -> Iterator[Entry]:
    bucket, key = bucket_key(source)
    first_star = next((at for at, letter in enumerate(key) if letter in "*?["), len(key))
    with doing("listed", source):
        plain = first_star == len(key) or exists(source)
        prefix = key if plain else key[:first_star]
        pattern = re.compile(re.escape(key.rstrip("/")) if plain else _glob_pattern(key))
        found = False
        for entry in _side_by_side(_key_ranges(bucket, prefix), partial(_list_range, bucket, prefix, pattern)):
            found = True
            yield entry
    if not found:
        raise FileNotFoundError(source)


def _key_ranges(bucket: str, prefix: str) -> list[tuple[str, str]]:
    """The keys below a prefix, cut into ranges (after, up to and with) at the names of folders; "" is no bound.

    Ranges and not folders: a million folders of one file each take as few requests as one folder of a million files.
    """
    level: list[str] = [prefix]
    cuts: list[str] = []
    for _ in range(3):  # folders of a few levels are enough to keep all listers busy
        level = [folder for place in level[:_LISTERS] for folder in _folders(bucket, place)]
        cuts = sorted({*cuts, *level})
        if not level or len(cuts) >= 2 * _LISTERS:
            break
    step = max(1, len(cuts) // (2 * _LISTERS))
    bounds = ["", *cuts[step::step], ""]
    return list(pairwise(bounds))


def _folders(bucket: str, prefix: str) -> list[str]:
    """Names of the folders one level below a prefix, those of the first page."""
    page = client().list_objects_v2(Bucket=bucket, Prefix=prefix, Delimiter="/")
    return [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]


def _list_range(bucket: str, prefix: str, pattern: re.Pattern[str], bounds: tuple[str, str]) -> _Listed:
    after, last = bounds
    pages = client().get_paginator("list_objects_v2")
    for page in pages.paginate(Bucket=bucket, Prefix=prefix, **({"StartAfter": after} if after else {})):
        keys = [entry["Key"] for entry in page.get("Contents", [])]
        # A store sorts by bytes, and so does Python for keys encoded as UTF-8.
        end = len(keys) if not last else bisect_left(keys, last.encode() + b"\0", key=str.encode)
        yield [_s3_entry(bucket, entry) for entry in page.get("Contents", [])[:end] if _wanted(entry, pattern)], []
        if end < len(keys):
            return


def _s3_entry(bucket: str, entry: dict[str, Any]) -> Entry:
    return Entry(f"s3://{bucket}/{entry['Key']}", entry["ETag"].strip('"'), entry["Size"], entry["LastModified"])


def _wanted(entry: dict[str, Any], pattern: re.Pattern[str]) -> bool:
    return _is_or_lies_below(entry["Key"], pattern) and not entry["Key"].endswith("/")


def _is_or_lies_below(key: str, pattern: re.Pattern[str]) -> bool:
    """Whether the key, or a folder that it lies in, matches; as on a disk, a folder that matches brings all its files."""
    if not pattern.pattern:
        return True
    ends = [at for at, letter in enumerate(key) if letter == "/"] + [len(key)]
    return any(pattern.fullmatch(key, 0, end) for end in ends)


def _glob_pattern(text: str) -> str:
    """A glob as a regular expression over keys: only ** crosses slashes, as on a disk."""
    special = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.findall(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", text, re.DOTALL)
    return "".join(special.get(part) or (_letters(part) if len(part) > 1 else re.escape(part)) for part in parts)


def _letters(part: str) -> str:
    """[a-c] or [!a-c] of a glob as a regular expression."""
    inner = part[1:-1].replace("\\", "\\\\")
    return f"[^{inner[1:]}]" if inner.startswith("!") else f"[{inner}]"
