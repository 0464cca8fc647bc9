"""Bytes by URI: plain paths, file:// and s3:// (also spelled s3a://), as much of it as manifests and videos need.

`write` puts a whole object or nothing. boto3 takes endpoint, region and credentials from its usual places
(AWS_ENDPOINT_URL, AWS_PROFILE, instance roles); none of them is logged.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path


class TooLarge(OSError):
    """An object has more bytes than the caller allows; nothing was read into memory."""


def join(root: str, *parts: str) -> str:
    """`root/part/part`, with no doubled slash."""
    return "/".join([root.rstrip("/"), *(part.strip("/") for part in parts)])


def absolute(uri: str) -> str:
    """Plain relative paths become absolute, the rest stays as it is: workers have other working folders."""
    return uri if "://" in uri or uri.startswith("file:") else str(Path(uri).expanduser().resolve())


def local_path(uri: str) -> Path | None:
    """The path behind a plain path or file: URI; None for an object store. Raises ValueError for other schemes."""
    if uri.startswith("file:"):  # names are taken as they are, as Hadoop does: no percent signs are decoded
        return Path("/" + uri.removeprefix("file:").lstrip("/"))
    scheme = uri.partition("://")[0] if "://" in uri else ""
    if scheme == "":
        return Path(uri)
    if scheme in ("s3", "s3a"):
        return None
    raise ValueError(f"{uri}: scheme '{scheme}' is not one of file, s3, s3a")


@lru_cache(maxsize=1)
def _s3():
    import boto3
    from botocore.config import Config

    # A store that hangs must be told from a file that does: this gives up before a decoder's time is over.
    bounds = Config(connect_timeout=4, read_timeout=8, retries={"mode": "standard", "total_max_attempts": 2})
    return boto3.client("s3", config=bounds)


def _bucket_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.partition("://")[2].partition("/")
    return bucket, key


def _s3_error_code(error: Exception) -> str:
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def read_bytes(uri: str, limit: int | None = None) -> bytes:
    """The object's bytes. Raises FileNotFoundError, and TooLarge above `limit` bytes."""
    path = local_path(uri)
    if path is not None:
        size = path.stat().st_size
        _check_size(uri, size, limit)
        return path.read_bytes()
    bucket, key = _bucket_key(uri)
    try:
        found = _s3().get_object(Bucket=bucket, Key=key)
    except Exception as error:
        if _s3_error_code(error) in ("NoSuchKey", "404", "NoSuchBucket"):
            raise FileNotFoundError(uri) from None
        raise
    _check_size(uri, found["ContentLength"], limit)
    return found["Body"].read()


def read_start(uri: str, count: int) -> bytes:
    """The first bytes of an object, at most `count`."""
    path = local_path(uri)
    if path is not None:
        with path.open("rb") as file:
            return file.read(count)
    bucket, key = _bucket_key(uri)
    return _s3().get_object(Bucket=bucket, Key=key)["Body"].read(count)


def _check_size(uri: str, size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise TooLarge(f"{uri}: {size:,} bytes, allowed are {limit:,}")


def write(uri: str, data: bytes) -> None:
    """Replace the object: readers see the old bytes or the new ones, never a part."""
    path = local_path(uri)
    if path is None:
        bucket, key = _bucket_key(uri)
        _s3().put_object(Bucket=bucket, Key=key, Body=data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def exists(uri: str) -> bool:
    """Whether there is an object, or a folder with something in it, at this URI."""
    path = local_path(uri)
    if path is not None:
        return path.exists()
    bucket, key = _bucket_key(uri)
    # Of all keys that begin with it, the key itself comes first.
    itself = _s3().list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", [])
    if itself and itself[0]["Key"] == key:
        return True
    return "Contents" in _s3().list_objects_v2(Bucket=bucket, Prefix=_folder(key), MaxKeys=1)


def _folder(key: str) -> str:
    """The prefix of everything below a key; a bucket as a whole has none."""
    return key.rstrip("/") + "/" if key else ""


def children(uri: str) -> list[str]:
    """Names of the files and folders directly below, sorted; an absent folder has none. Hidden names are left out."""
    path = local_path(uri)
    if path is not None:
        return sorted(entry.name for entry in path.iterdir() if entry.name[0] != ".") if path.is_dir() else []
    bucket, key = _bucket_key(uri)
    prefix, names = _folder(key), set()
    for page in _s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/"):
        names.update(entry["Key"] for entry in page.get("Contents", []))
        names.update(entry["Prefix"] for entry in page.get("CommonPrefixes", []))
    below = {name.removeprefix(prefix).rstrip("/") for name in names}
    return sorted(name for name in below if name and name[0] != ".")


@dataclass(frozen=True)
class Entry:
    """One file as its store lists it; etag changes when the file changes."""

    uri: str
    etag: str
    size: int  # bytes
    modified_at: datetime  # UTC


def walk(source: str) -> Iterator[Entry]:
    """Every file below a folder, matching a glob (*, ?, [..], and ** for any depth), or the one file named.

    Hidden names are included: real ids begin with '_' and '-'. A link is a file of its own; folders behind links are
    walked only where the source itself names one. A glob that reaches one folder in two ways, through a link, may list its
    files twice. Raises FileNotFoundError when nothing is there, PermissionError for a folder that cannot be read.
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


def _walk_path(path: Path) -> Iterator[Entry]:
    if not path.is_dir():
        yield from _entry(path)
        return
    for folder, folders, files in os.walk(path.resolve(), onerror=_raise):
        folders.sort()
        for name in sorted(files):
            yield from _entry(Path(folder, name))


def _raise(error: OSError) -> None:
    raise error  # os.walk would leave the folder out without a word


def _entry(path: Path) -> Iterator[Entry]:
    """The file; nothing for a link to nowhere, or a file that is gone since it was listed."""
    try:
        status = path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return
        raise
    modified = datetime.fromtimestamp(status.st_mtime_ns // 1000 / 1e6, UTC)
    uri = str(path.parent.resolve() / path.name)
    # A name that is not UTF-8 cannot be in a table: its bytes are spelled out, and reading it will not find it.
    uri = os.fsencode(uri).decode("utf-8", "backslashreplace")
    yield Entry(uri, f"{status.st_size}-{status.st_mtime_ns}", status.st_size, modified)


def _walk_s3(source: str) -> Iterator[Entry]:
    bucket, key = _bucket_key(source)
    first_star = next((at for at, letter in enumerate(key) if letter in "*?["), len(key))
    plain = first_star == len(key) or exists(source)
    prefix = key if plain else key[:first_star]
    pattern = re.compile(re.escape(key.rstrip("/")) if plain else _glob_pattern(key))
    found = False
    for page in _s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Contents", []):
            if _is_or_lies_below(entry["Key"], pattern) and not entry["Key"].endswith("/"):
                found = True
                etag = entry["ETag"].strip('"')
                yield Entry(f"s3://{bucket}/{entry['Key']}", etag, entry["Size"], entry["LastModified"])
    if not found:
        raise FileNotFoundError(source)


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


def delete(uri: str) -> None:
    """Remove an object or a folder with all below it; absent is fine."""
    path = local_path(uri)
    if path is not None:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        return
    bucket, key = _bucket_key(uri)
    _s3().delete_object(Bucket=bucket, Key=key)
    for page in _s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key.rstrip("/") + "/"):
        keys = [{"Key": entry["Key"]} for entry in page.get("Contents", [])]
        if keys:
            _s3().delete_objects(Bucket=bucket, Delete={"Objects": keys})
