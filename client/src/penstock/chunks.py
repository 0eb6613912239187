"""Messages with nothing but a chunk of a file, as the wire has them: no message object is made, which copies it twice.

They are alike in both directions: field 2 of UploadArtifactRequest and of DownloadArtifactResponse, its length, the
bytes.
"""

from __future__ import annotations

_TAG = b"\x12"


def chunk_message(data: bytes | memoryview) -> bytes:
    """A message with a chunk."""
    return b"".join((_TAG, _varint(len(data)), data))


def chunk_in(message: bytes) -> memoryview | None:
    """The chunk in a message, not copied; None when it is something else."""
    if message[:1] != _TAG:
        return None
    length = shift = 0
    for at in range(1, min(len(message), 11)):
        length |= (message[at] & 0x7F) << shift
        shift += 7
        if message[at] < 0x80:
            return memoryview(message)[at + 1 :] if at + 1 + length == len(message) else None
    return None


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
