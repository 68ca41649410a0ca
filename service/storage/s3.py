"""A store in a bucket of S3, or of anything that speaks S3: clients put and get there directly, with URLs that it has signed."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast
from urllib.parse import quote

from service.storage.store import (
    LONGEST_GET_SECONDS,
    LONGEST_PUT_SECONDS,
    PUT_SECONDS,
    NoSuchObject,
    StoredObject,
    TooLarge,
    checked_key,
    checked_seconds,
)

_ABSENT = ("404", "NoSuchKey", "NotFound")
_CONNECT_SECONDS, _READ_SECONDS, _ATTEMPTS = 5, 60, 4


@dataclass(frozen=True)
class Bucket:
    """Where the objects lie. Without keys boto3 looks for them as it always does (environment, profile, role of the machine)."""

    name: str
    endpoint_url: str | None = None  # None: AWS
    region: str | None = None  # None: what boto3 finds in its settings
    access_key: str | None = None
    secret_key: str | None = None
    addressing: Literal["auto", "path", "virtual"] = "auto"  # path: endpoint/bucket/key, which most other servers need
    prefix: str = ""  # of all keys, with its last slash


def bucket_of(store: str, endpoint_url: str | None) -> Bucket:
    """s3://bucket/prefix -> the bucket; keys come from where boto3 looks. Servers that are not AWS's get bucket names in the path."""
    scheme, _, rest = store.partition("://")
    name, _, prefix = rest.rstrip("/").partition("/")
    if scheme != "s3" or not name:
        raise ValueError(f"{store!r} names no bucket; write s3://bucket or s3://bucket/prefix")
    return Bucket(name, endpoint_url, addressing="path" if endpoint_url else "auto", prefix=f"{prefix}/" if prefix else "")


class S3Store:
    """A signed PUT of S3 cannot cap its length: uploaded() looks afterwards, and deletes what is too long."""

    def __init__(self, bucket: Bucket):
        import boto3  # takes a third of a second, and most services have no bucket
        from botocore.client import Config

        self._bucket = bucket
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=bucket.endpoint_url,
            region_name=bucket.region,
            aws_access_key_id=bucket.access_key,
            aws_secret_access_key=bucket.secret_key,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": bucket.addressing},
                request_checksum_calculation="when_required",  # other servers refuse the CRC headers of newer botocore
                response_checksum_validation="when_required",
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                retries={"mode": "standard", "max_attempts": _ATTEMPTS},
            ),
        )

    def put_url(self, key: str, *, max_bytes: int, seconds: int = PUT_SECONDS) -> str:
        """Only the host is signed: any Content-Type fits."""
        checked_seconds(seconds, LONGEST_PUT_SECONDS)
        return self._signed("put_object", seconds, self._named(key))

    def get_url(self, key: str, *, seconds: int, file_name: str | None = None) -> str:
        checked_seconds(seconds, LONGEST_GET_SECONDS)
        disposition = f"attachment; filename*=utf-8''{quote(file_name or key.split('/')[-1], safe='')}"
        return self._signed("get_object", seconds, {**self._named(key), "ResponseContentDisposition": disposition})

    def _signed(self, operation: str, seconds: int, parameters: dict[str, str]) -> str:
        return str(self._client.generate_presigned_url(operation, Params=parameters, ExpiresIn=seconds))

    def uploaded(self, key: str, *, max_bytes: int) -> StoredObject:
        found = self.head(key)
        if found is None:
            raise NoSuchObject(key)
        if found.size > max_bytes:
            self.delete(key)
            raise TooLarge(max_bytes)
        return found

    def save(self, key: str, source: Path) -> StoredObject:
        name = self._named(key)
        self._client.upload_file(str(source), name["Bucket"], name["Key"])  # in parts where it is large
        found = self.head(key)
        if found is None:
            raise NoSuchObject(key)
        return found

    def open(self, key: str) -> BinaryIO:
        from botocore.exceptions import ClientError

        try:
            return cast(BinaryIO, self._client.get_object(**self._named(key))["Body"])
        except ClientError as error:
            raise _told(error, key) from error

    def download(self, key: str, destination: Path) -> None:
        from botocore.exceptions import ClientError

        name = self._named(key)
        try:
            self._client.download_file(name["Bucket"], name["Key"], str(destination))  # under another name until it is whole
        except ClientError as error:
            raise _told(error, key) from error

    def head(self, key: str) -> StoredObject | None:
        from botocore.exceptions import ClientError

        try:
            found = self._client.head_object(**self._named(key))
        except ClientError as error:
            if isinstance(_told(error, key), NoSuchObject):
                return None
            raise
        return StoredObject(key, int(found["ContentLength"]), str(found["ETag"]).strip('"'))

    def delete(self, key: str) -> None:
        self._client.delete_object(**self._named(key))

    def _named(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket.name, "Key": self._bucket.prefix + checked_key(key)}


def _told(error: Any, key: str) -> Exception:
    """NoSuchObject where the bucket has nothing there, else the error itself."""
    return NoSuchObject(key) if error.response["Error"]["Code"] in _ABSENT else cast(Exception, error)
