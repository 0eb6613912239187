"""What keeps the bytes of artifacts: a local directory, or S3."""

from __future__ import annotations

from penstock_server.blobs.local import LocalStore
from penstock_server.blobs.store import S3Options, Store
from penstock_server.model.artifacts import LocalRoot, S3Root

__all__ = ["S3Options", "Store", "open_store"]


async def open_store(root: LocalRoot | S3Root, s3: S3Options) -> Store:
    """The store at a root. Calls nobody yet, so that one that is away keeps no server from starting.

    Raises StoreRefused.
    """
    if isinstance(root, S3Root):
        # aiobotocore takes a quarter of a second and tens of MB, which who has a directory need not pay.
        from penstock_server.blobs.s3 import S3Store  # noqa: PLC0415

        return await S3Store.open(root, s3)
    return LocalStore(root)
