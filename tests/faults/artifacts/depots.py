"""The stores of the campaigns, as the server is told of them and as they are seen from beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config

from artifacts.wire import Wire
from s3 import ACCESS_KEY, REGION, SECRET_KEY, S3Server

_UPLOADS = ".uploads/"  # where the local store gathers parts
_MARK = ".penstock"  # what the server knows the store by


class Directory:
    """A directory of this machine."""

    endpoint: str | None = None

    def __init__(self, place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self.place = place
        self.root = place.as_uri()
        self.credentials: dict[str, str] = {}
        self.environment = {"PENSTOCK_ARTIFACTS_ROOT": self.root}

    def objects(self) -> Mapping[str, int]:
        """All files but those that are being gathered, and the mark."""
        return {key: size for key, size in self._files().items() if not key.startswith(_UPLOADS) and key != _MARK}

    def begun(self) -> list[str]:
        """Files that are being gathered."""
        return [f"{key} of {size} bytes" for key, size in self._files().items() if key.startswith(_UPLOADS)]

    def read(self, key: str) -> bytes:
        """A file."""
        return (self.place / key).read_bytes()

    def _files(self) -> dict[str, int]:
        files = (path for path in self.place.rglob("*") if path.is_symlink() or not path.is_dir())
        return {str(path.relative_to(self.place)): path.lstat().st_size for path in files}


class Disk(Directory):
    """A directory on a disk of its own, which can be filled. Raises PermissionError where that may not be mounted."""

    def __init__(self, place: Path, size: int) -> None:
        place.mkdir(parents=True)
        made = ("mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", str(place))
        if shutil.which("mount") is None or subprocess.run(made, capture_output=True, check=False).returncode:
            raise PermissionError("only who may mount has a disk to fill")
        self._disk = place
        self._filler = place / "filler"
        super().__init__(place / "artifacts")

    def fill(self) -> None:
        """No room is left."""
        with suppress(OSError), self._filler.open("ab", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(self._disk).free)
            while file.write(bytes(1 << 16)):
                pass

    def clear(self) -> None:
        """There is room again."""
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Lets go of the disk."""
        subprocess.run(("umount", "--lazy", str(self._disk)), check=True)


class Bucket:
    """A bucket of a real S3 server, with a wire before it that does harm. Seen from beside, nothing is in the way."""

    def __init__(self, place: Path) -> None:
        self._server = S3Server(place).start()
        self.wire = Wire(f"127.0.0.1:{self._server.port}")
        self.root, self.endpoint = self._server.root, self._server.endpoint
        self.credentials = self._server.credentials
        self.environment = self._server.environment | {"PENSTOCK_S3_ENDPOINT": f"http://{self.wire.address}"}
        self._prefix = self._server.root.removeprefix(f"s3://{self._server.bucket}/") + "/"
        self._client: Any = botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self._server.endpoint,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(s3={"addressing_style": "path"}),
        )

    def objects(self) -> Mapping[str, int]:
        """All objects of the bucket but the mark; those beyond the root with their whole key."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._server.bucket)
        found = [each for page in pages for each in page.get("Contents", ())]
        sizes = {each["Key"].removeprefix(self._prefix): each["Size"] for each in found}
        return {key: size for key, size in sizes.items() if key != _MARK}

    def begun(self) -> list[str]:
        """Uploads in parts that have no end."""
        pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._server.bucket)
        with suppress(self._client.exceptions.NoSuchUpload):  # so rclone says that there never was one
            return [f"{each['Key']} {each['UploadId']}" for page in pages for each in page.get("Uploads", ())]
        return []

    def read(self, key: str) -> bytes:
        """An object."""
        answer = self._client.get_object(Bucket=self._server.bucket, Key=self._prefix + key)
        data: bytes = answer["Body"].read()
        return data

    def plant(self, key: str) -> None:
        """An object, and an upload in parts, that no server has made."""
        self._client.put_object(Bucket=self._server.bucket, Key=self._prefix + key, Body=b"x")
        self._client.create_multipart_upload(Bucket=self._server.bucket, Key=self._prefix + key)

    def restart(self, away: float = 0.0) -> None:
        """Kills it, and starts it again after so many seconds. It has forgotten what was not complete."""
        self._server.kill()
        time.sleep(away)
        self._server.start()

    def close(self) -> None:
        """Ends it."""
        self._client.close()
        self.wire.close()
        self._server.kill()
