"""Bytes by URI: plain paths, file:// and s3:// (also spelled s3a://), as much of it as a lake and its videos need.

`write` and `put` place a whole object or nothing. boto3 takes endpoint, region and credentials from its usual places
(AWS_ENDPOINT_URL, AWS_PROFILE, instance roles); none of them is logged.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any


class TooLarge(OSError):
    """An object has more bytes than the caller allows; nothing was read into memory."""


class StoreError(RuntimeError):
    """A store did not do what was asked of it, through no fault of the object; the message says what to look at."""


class Damaged(ValueError):
    """A file does not hold what this program wrote into it."""


_NUMBER = re.compile(r"\b(?:os error |Os { code: )(\d+)")
_PAINT = re.compile(r"\x1b\[[\d;]*m|↳")  # what delta-rs writes for terminals
_REMEDIES = {
    errno.ENOSPC: "the disk is full: free space on it and run this again",
    errno.EDQUOT: "the quota is used up: free space and run this again",
    errno.EROFS: "the file system is read-only: mount it for writing, or point lake.root elsewhere",
    errno.EACCES: "permission denied: give this user the right to it, or point lake.root elsewhere",
    errno.EPERM: "not permitted: give this user the right to it, or point lake.root elsewhere",
}


@contextmanager
def doing(what: str, uri: str) -> Iterator[None]:
    """Turns the failures of a store into one kind of error that names the object, the cause and what to do."""
    try:
        yield
    except (FileNotFoundError, FileExistsError, TooLarge, StoreError):
        raise
    except OSError as error:
        raise StoreError(f"{uri}: cannot be {what}: {cause(error)}") from error
    except Exception as error:  # boto3 and what lies below it raise more kinds than can be listed
        if type(error).__module__.partition(".")[0] not in ("botocore", "boto3", "s3transfer", "urllib3"):
            raise
        raise StoreError(f"{uri}: cannot be {what}: {type(error).__name__}: {error}") from error


def cause(error: Exception) -> str:
    """Why a store failed, in one line: what to do, where the operating system says what is wrong.

    Of its errors delta-rs keeps the number only in the text.
    """
    number = error.errno if isinstance(error, OSError) else None
    text = " ".join(_PAINT.sub("", str(error)).split())
    if number is None and (told := _NUMBER.search(text)):
        number = int(told[1])
    return _REMEDIES.get(number or 0) or f"{type(error).__name__}: {text}"


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
def client() -> Any:
    """The S3 client of this process."""
    import boto3  # takes a second: only where a path is on S3
    from botocore.config import Config

    # A store that hangs must be told from a file that does: this gives up before a decoder's time is over.
    bounds = Config(connect_timeout=4, read_timeout=8, retries={"mode": "standard", "total_max_attempts": 2})
    return boto3.client("s3", config=bounds)


def bucket_key(uri: str) -> tuple[str, str]:
    """Bucket and key of an s3:// URI."""
    bucket, _, key = uri.partition("://")[2].partition("/")
    return bucket, key


def _s3_error_code(error: Exception) -> str:
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def read_bytes(uri: str, limit: int | None = None) -> bytes:
    """The object's bytes. Raises FileNotFoundError, TooLarge above `limit` bytes, and StoreError."""
    path = local_path(uri)
    with doing("read", uri):
        if path is not None:
            _check_size(uri, path.stat().st_size, limit)
            return path.read_bytes()
        found = _get(uri)
        _check_size(uri, found["ContentLength"], limit)
        return found["Body"].read()


def read_start(uri: str, count: int) -> bytes:
    """The first bytes of an object, at most `count`. Raises what `read_bytes` raises."""
    path = local_path(uri)
    with doing("read", uri):
        if path is None:
            return _get(uri)["Body"].read(count)
        with path.open("rb") as file:
            return file.read(count)


def read_json(uri: str) -> Any:
    """The JSON document in a file. Raises Damaged where it holds none, and what `read_bytes` raises."""
    data = read_bytes(uri)
    try:
        return json.loads(data)
    except ValueError:
        raise Damaged(f"{uri}: expected a JSON document, found {len(data)} bytes that are none (cut short?)") from None


def _get(uri: str) -> dict[str, Any]:
    bucket, key = bucket_key(uri)
    try:
        return client().get_object(Bucket=bucket, Key=key)
    except Exception as error:
        if _s3_error_code(error) in ("NoSuchKey", "404", "NoSuchBucket"):
            raise FileNotFoundError(errno.ENOENT, "no such object", uri) from None
        raise


def _check_size(uri: str, size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise TooLarge(f"{uri}: {size:,} bytes, allowed are {limit:,}")


def write(uri: str, data: bytes) -> None:
    """Replace the object: readers see the old bytes or the new ones, never a part. Raises StoreError."""
    path = local_path(uri)
    with doing("written", uri):
        if path is None:
            bucket, key = bucket_key(uri)
            client().put_object(Bucket=bucket, Key=key, Body=data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = _aside(path)
        try:
            with aside.open("xb") as file:
                file.write(data)
            put(aside, uri)
        except BaseException:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise


def create(uri: str, data: bytes) -> None:
    """Put an object where none is, as the log of a table needs it. Raises FileExistsError where one is, StoreError."""
    path = local_path(uri)
    with doing("written", uri):
        if path is None:
            bucket, key = bucket_key(uri)
            try:
                client().put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
            except Exception as error:
                if _s3_error_code(error) in ("PreconditionFailed", "412", "ConditionalRequestConflict", "409"):
                    raise FileExistsError(errno.EEXIST, "somebody was first", uri) from None
                raise
            return
        aside = _aside(path)
        try:
            with aside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(aside, path)
        finally:
            with suppress(OSError):
                aside.unlink(missing_ok=True)


def scratch(uri: str) -> Path:
    """A local path to write to what `put` then moves to `uri`: a hidden neighbour where that is on a disk."""
    path = local_path(uri)
    if path is None:
        return _aside(Path(tempfile.gettempdir(), uri.rpartition("/")[2]))
    with doing("written", uri):
        path.parent.mkdir(parents=True, exist_ok=True)
    return _aside(path)


def put(local: Path, uri: str) -> None:
    """Move a finished local file to `uri`, whole and safe from a loss of power. Raises StoreError."""
    path = local_path(uri)
    with doing("written", uri):
        if path is None:
            bucket, key = bucket_key(uri)
            client().upload_file(str(local), bucket, key)
            local.unlink()
            return
        with local.open("rb") as file:
            os.fsync(file.fileno())
        local.replace(path)


def _aside(path: Path) -> Path:
    """A hidden name beside a path; it ends like the path's own, so that who looks for leftovers knows whose it is."""
    return path.with_name(f".{secrets.token_hex(6)}.{path.name}")


def exists(uri: str) -> bool:
    """Whether there is an object, or a folder with something in it, at this URI."""
    path = local_path(uri)
    if path is not None:
        return path.exists()
    bucket, key = bucket_key(uri)
    with doing("looked for", uri):
        # Of all keys that begin with it, the key itself comes first.
        itself = client().list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", [])
        if itself and itself[0]["Key"] == key:
            return True
        return "Contents" in client().list_objects_v2(Bucket=bucket, Prefix=_folder(key), MaxKeys=1)


def _folder(key: str) -> str:
    """The prefix of everything below a key; a bucket as a whole has none."""
    return key.rstrip("/") + "/" if key else ""


def children(uri: str) -> list[str]:
    """Names of the files and folders directly below, sorted; an absent folder has none. Hidden names are left out."""
    path = local_path(uri)
    if path is not None:
        return sorted(entry.name for entry in path.iterdir() if entry.name[0] != ".") if path.is_dir() else []
    bucket, key = bucket_key(uri)
    prefix = _folder(key)
    names: set[str] = set()
    with doing("listed", uri):
        for page in client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/"):
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


def entry(uri: str) -> Entry:
    """One file as its store lists it now. Raises FileNotFoundError and StoreError."""
    path = local_path(uri)
    with doing("read", uri):
        if path is not None:
            found = entry_of(path)
            if found is None:
                raise FileNotFoundError(errno.ENOENT, "no such file", uri)
            return found
        bucket, key = bucket_key(uri)
        try:
            head = client().head_object(Bucket=bucket, Key=key)
        except Exception as error:
            if _s3_error_code(error) in ("NoSuchKey", "404", "NoSuchBucket"):
                raise FileNotFoundError(errno.ENOENT, "no such object", uri) from None
            raise
        return Entry(f"s3://{bucket}/{key}", head["ETag"].strip('"'), head["ContentLength"], head["LastModified"])


def entry_of(path: Path) -> Entry | None:
    """A local file; None for a link to nowhere, or a file that is gone since it was listed."""
    try:
        status = path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None
        raise
    modified = datetime.fromtimestamp(status.st_mtime_ns // 1000 / 1e6, UTC)
    uri = str(path.parent.resolve() / path.name)
    # A name that is not UTF-8 cannot be in a table: its bytes are spelled out, and reading it will not find it.
    uri = os.fsencode(uri).decode("utf-8", "backslashreplace")
    return Entry(uri, f"{status.st_size}-{status.st_mtime_ns}", status.st_size, modified)


def delete(uri: str) -> None:
    """Remove an object or a folder with all below it; absent is fine. Raises StoreError."""
    path = local_path(uri)
    with doing("removed", uri):
        if path is not None:
            if path.is_dir():
                shutil.rmtree(path, onerror=_unless_gone)
            else:
                path.unlink(missing_ok=True)
            return
        bucket, key = bucket_key(uri)
        client().delete_object(Bucket=bucket, Key=key)
        for page in client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=_folder(key)):
            keys = [{"Key": entry["Key"]} for entry in page.get("Contents", [])]
            if keys:
                client().delete_objects(Bucket=bucket, Delete={"Objects": keys})


def _unless_gone(function: Any, path: str, found: Any) -> None:
    """Another run may clean up the same folder: what is gone already is fine, and what came since stays."""
    if not isinstance(found[1], FileNotFoundError) and getattr(found[1], "errno", None) != errno.ENOTEMPTY:
        raise found[1]
