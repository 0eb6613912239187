"""The params and tags that a run begins with: in the request that makes it, as far as they fit, or in its stream."""

from __future__ import annotations

from penstock.batches import Update, update_bytes
from penstock.frames import Problem, shown, texts
from penstock.v1 import runs_pb2

_HELLO_BYTES = 256 << 10  # params and tags beyond this follow in the stream


def sort_given(params: object, tags: object) -> tuple[list[Update], list[Problem]]:
    """What of the params and tags can be stored, and what cannot."""
    updates: list[Update] = []
    problems: list[Problem] = []
    for kind, given in (("param", params), ("tag", tags)):
        try:
            pairs, bad = texts({} if given is None else given, kind)
        except Exception as error:  # noqa: BLE001  whatever a foreign mapping raises
            pairs, bad = [], [Problem(f"{kind} dict", f"{kind}s: {type(error).__name__} ({shown(error, str)})")]
        updates += [Update(kind == "param", *pair) for pair in pairs]
        problems += bad
    return updates, problems


def put(create: runs_pb2.CreateRunRequest, updates: list[Update], *, everything_later: bool) -> list[Update]:
    """Put the updates into the request, and return those that are to follow in the stream.

    A run that is there already takes nothing from the request; then they reach it by the stream.
    """
    later, size = [], 0
    for update in updates:
        size += update_bytes(update)
        if size <= _HELLO_BYTES:
            (create.params if update.is_param else create.tags)[update.key] = update.value
        if size > _HELLO_BYTES or everything_later:
            later.append(update)
    return later
