"""Bytes by URI: plain paths, file:// and s3:// (also spelled s3a://), with the writes that waves lean on.

`write` puts a whole object or nothing, `create` lets exactly one of several racing callers win. boto3 takes endpoint,
region and credentials from its usual places (AWS_ENDPOINT_URL, AWS_PROFILE, instance roles); none of them is logged.
"""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
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

    return boto3.client("s3")


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
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def create(uri: str, data: bytes) -> bool:
    """Write the object only if there is none: True for the one caller that made it."""
    path = local_path(uri)
    if path is None:
        bucket, key = _bucket_key(uri)
        try:
            _s3().put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
        except Exception as error:
            if _s3_error_code(error) in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409"):
                return False
            raise
        return True
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.link(aside, path)  # fails if the name is taken, and the name appears with its bytes
        return True
    except FileExistsError:
        return False
    finally:
        Path(aside).unlink(missing_ok=True)


def exists(uri: str) -> bool:
    """Whether there is an object, or a folder with something in it, at this URI."""
    path = local_path(uri)
    if path is not None:
        return path.exists()
    bucket, key = _bucket_key(uri)
    listed = _s3().list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=20).get("Contents", [])
    return any(entry["Key"] == key or entry["Key"].startswith(key.rstrip("/") + "/") for entry in listed)


def children(uri: str) -> list[str]:
    """Names of the files and folders directly below, sorted; an absent folder has none. Hidden names are left out."""
    path = local_path(uri)
    if path is not None:
        return sorted(entry.name for entry in path.iterdir() if entry.name[0] != ".") if path.is_dir() else []
    bucket, key = _bucket_key(uri)
    prefix, names = key.rstrip("/") + "/", set()
    for page in _s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/"):
        names.update(entry["Key"] for entry in page.get("Contents", []))
        names.update(entry["Prefix"] for entry in page.get("CommonPrefixes", []))
    return sorted(name.removeprefix(prefix).rstrip("/") for name in names)


@dataclass(frozen=True)
class Entry:
    """One file as its store lists it; etag changes when the file changes."""

    uri: str
    etag: str
    size: int  # bytes
    modified_at: datetime  # UTC


def walk(source: str) -> Iterator[Entry]:
    """Every file below a folder, matching a glob (*, ?, [..], and ** for any depth), or the one file named.

    Hidden names are included: real ids begin with '_' and '-'. Raises FileNotFoundError when nothing is there.
    """
    path = local_path(source)
    if path is None:
        yield from _walk_s3(source)
        return
    roots = iter([str(path)]) if path.exists() else glob.iglob(str(path), recursive=True, include_hidden=True)
    found = False
    for root in roots:
        found = True
        if Path(root).is_dir():
            for folder, folders, files in os.walk(root):
                folders.sort()
                yield from (_entry(Path(folder, name)) for name in sorted(files))
        else:
            yield _entry(Path(root))
    if not found:
        raise FileNotFoundError(source)


def _entry(path: Path) -> Entry:
    status = path.stat()
    modified = datetime.fromtimestamp(status.st_mtime_ns // 1000 / 1e6, UTC)
    return Entry(str(path.resolve()), f"{status.st_size}-{status.st_mtime_ns}", status.st_size, modified)


def _walk_s3(source: str) -> Iterator[Entry]:
    bucket, key = _bucket_key(source)
    prefix = key[: next((at for at, letter in enumerate(key) if letter in "*?["), len(key))]
    found = False
    for page in _s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Contents", []):
            below = entry["Key"] == key or entry["Key"].startswith(key.rstrip("/") + "/") or key == ""
            if (below if prefix == key else fnmatchcase(entry["Key"], key)) and not entry["Key"].endswith("/"):
                found = True
                etag = entry["ETag"].strip('"')
                yield Entry(f"s3://{bucket}/{entry['Key']}", etag, entry["Size"], entry["LastModified"])
    if not found:
        raise FileNotFoundError(source)


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
