"""The part of a run that registers its model. Unlike logging, this waits for the server, and raises."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

from penstock.bars import count_of, files_of
from penstock.errors import FailedPrecondition, NotFound, PenstockError, Retryable, TimedOut
from penstock.outgoing.box import Entry
from penstock.paths import artifact_directory
from penstock.progress import Telling
from penstock.sender import State

if TYPE_CHECKING:
    from penstock.model_versions import ModelVersion
    from penstock.outgoing.outgoing import Outgoing
    from penstock.sender import Sender
    from penstock.spool.spool import Spool
    from penstock.tracking import Plan

_LOOK = 0.02  # seconds
_AGAIN = 0.5


class ModelLog:
    """Registering of what a run has logged."""

    if TYPE_CHECKING:
        id: str
        _plan: Plan
        _sender: Sender
        _spool: Spool
        _files: Outgoing | None
        _finish_timeout: float

        def _at_home(self) -> None: ...

    def register_model(
        self,
        name: str,
        path: str | os.PathLike[str] = "",
        *,
        description: str = "",
        tags: Mapping[str, object] | None = None,
        timeout: float | None = None,
    ) -> ModelVersion:
        """Make the next version of a model, of what the run has logged at `path`: a file, or a directory with all in
        it; empty: all of the run. Makes the model, too, when there is none.

        Waits until these files, and all that was logged to the run before, are at the server: then gates find its
        metrics. Each call makes a version: where several processes log into one run, one of them calls it.

        Args:
            name: the model; 1 to 256 characters, without / and :
            path: in the run, as `log_artifact` has put it there.
            description: of the version.
            tags: of the version, as text.
            timeout: how many seconds all of it may take. None: the run's `finish_timeout` (120).

        Raises:
            errors.TimedOut: not all has arrived in time, or the server was away; the version may have been made all
                the same, if it went away just then.
            errors.NotFound: nothing was logged at `path`.
            errors.FailedPrecondition: the run is offline or deleted, or a file below `path` was refused.
            errors.InvalidArgument: a name, description or tag that can never be right.
        """
        where = artifact_directory(path)
        if self._plan.offline:
            raise FailedPrecondition(
                f"run {self.id} is offline, and a model is registered by the server: `penstock sync` sends the run; "
                f"then `penstock models register {name} {self.id} {where}`".rstrip()
            )
        self._at_home()
        timeout = self._finish_timeout if timeout is None else timeout
        until = time.monotonic() + timeout
        self._wait_sent(where, until)
        request_id = uuid.uuid4().hex  # the same for each try, so that they make one version
        from penstock.client import Client  # noqa: PLC0415  runs that register nothing do without

        with Client(self._plan.address.url, workspace=self._plan.address.workspace) as client:
            while True:
                try:
                    return client.registry.create_version(
                        name,
                        self.id,
                        where,
                        description=description,
                        tags=tags,
                        create_model=True,
                        request_id=request_id,
                    )
                except Retryable as error:
                    failed: PenstockError = error
                except NotFound as error:
                    if error.facts.get("penstock-kind") != "run" or self._sender.state.over:
                        raise
                    failed = error  # it is made by the run's own stream, which is on its way
                if time.monotonic() + _AGAIN > until:
                    why = self._sender.trouble if isinstance(failed, NotFound) else ""
                    raise TimedOut(f"{name!r} is not known to be registered: {why or failed}") from failed
                time.sleep(_AGAIN)

    def _wait_sent(self, where: str, until: float) -> None:
        """Until what was logged so far, and all files at or below a path, are at the server."""
        last, outbox = self._spool.count, self._sender.outbox
        files = self._files
        if files is not None:
            files.courier.hurried = True
        try:
            with Telling(self._sender, self.id, files) as telling:
                while (unsent := self._unsent(where)) or (
                    outbox.acked < last and self._sender.state is not State.CLOSED
                ):
                    if self._sender.state is State.PARKED:
                        raise FailedPrecondition(f"the server does not take run {self.id}: {self._sender.trouble}")
                    if files is not None and unsent and files.settled:
                        raise FailedPrecondition(f"run {self.id}: {files.fate()}")
                    if time.monotonic() >= until:
                        raise TimedOut(self._still_to_come(unsent))
                    time.sleep(_LOOK)
                    telling.tell()
        finally:
            if files is not None and not files.closed:
                files.courier.hurried = False
        refused = [each for each in (files.refusals if files is not None else ()) if _is_below(each[0], where)]
        if refused:
            raise FailedPrecondition(f"the file {refused[0][0]} of run {self.id} was refused: {refused[0][1]}")

    def _unsent(self, where: str) -> list[Entry]:
        left = self._files.left if self._files is not None else []
        return [entry for entry in left if _is_below(entry.path, where)]

    def _still_to_come(self, unsent: list[Entry]) -> str:
        what = [files_of(len(unsent), sum(entry.size for entry in unsent))] if unsent else []
        what += [count_of(count, "record")] if (count := self._sender.outbox.unacked) else []
        why = (self._files.courier.reason if unsent and self._files is not None else "") or self._sender.trouble
        told = f" ({why})" if why else ""
        return f"run {self.id} is not all at the server in time{told}: {' and '.join(what)} still to be sent"


def _is_below(path: str, where: str) -> bool:
    return not where or path == where or path.startswith(f"{where}/")
