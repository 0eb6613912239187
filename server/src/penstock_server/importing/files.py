"""Copies files of a source into our store, one after another, and those that are here already not again."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from penstock_server.core.uploads import Uploads
from penstock_server.importing.mlflow_package import MlflowPackage, local_directory
from penstock_server.importing.tally import Tally
from penstock_server.model.access import Caller
from penstock_server.model.errors import InvalidArgument
from penstock_server.model.owners import Owner
from penstock_server.model.uploads import NewUpload
from penstock_server.postgres import imports
from penstock_server.postgres.database import Database

_PIECE = 1 << 20


class Files:
    """Copies the files of runs and logged models."""

    def __init__(self, db: Database, uploads: Uploads, package: MlflowPackage, tally: Tally) -> None:
        self._db = db
        self._uploads = uploads
        self._package = package
        self._tally = tally

    async def copy(self, caller: Caller, owner: Owner, uri: str) -> int | None:
        """Brings in the files below `uri`: how many the source has. None when they could not be read."""
        try:
            found = await asyncio.to_thread(self._package.files, uri)
        except Exception as error:  # noqa: BLE001  # whatever a store of MLflow's raises
            self._tally.missing(f"files of {owner.kind.label} {owner}", error)
            return None
        async with self._db.connection() as conn:
            here = await imports.files(conn, owner.id)
        for path, size in found:
            if path not in here or (size and here[path] != size):
                await self._one(caller, owner, uri, path)
        return len(found)

    async def _one(self, caller: Caller, owner: Owner, uri: str, path: str) -> None:
        with tempfile.TemporaryDirectory(prefix="penstock-import-") as directory:
            try:
                file = await asyncio.to_thread(self._package.fetch, uri, path, directory)
                size = file.stat().st_size
            except Exception as error:  # noqa: BLE001
                self._tally.missing(f"file {path} of {owner.kind.label} {owner}", error)
                return
            try:
                await self._uploads.receive(caller, NewUpload(owner, path, size, force=True), b"", _pieces(file))
            except InvalidArgument as error:
                self._tally.missing(f"file {path} of {owner.kind.label} {owner}", error)


def is_elsewhere(location: str) -> bool:
    """Whether a location is a directory that this machine does not have."""
    directory = local_directory(location)
    return directory is not None and not directory.is_dir()


async def _pieces(file: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(file.open, "rb") as opened:
        while piece := await asyncio.to_thread(opened.read, _PIECE):
            yield piece
