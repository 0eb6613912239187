"""The part of a run that takes files: each is copied, or written, into the box of this process, and sent from there."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

# All at once, though few processes log files: a signal handler that logs one may strike in the middle of an import, and
# no import of its own is sure to work there.
from penstock import logged, paths
from penstock.address import artifacts_address
from penstock.frames import shown
from penstock.outgoing.outgoing import Outgoing, Unlogged

if TYPE_CHECKING:
    from penstock.sender import Sender
    from penstock.tracking import Plan

_log = logging.getLogger("penstock")

LocalPath = str | os.PathLike[str]


class ArtifactLog:
    """Logging of artifacts. As with metrics: nothing waits for the server, nothing raises, `refused` counts."""

    if TYPE_CHECKING:
        id: str
        _plan: Plan
        _sender: Sender

        def _guarded(self, work: Callable[[], None]) -> None: ...
        def _count(self, values: int) -> None: ...
        def _warn(self, kind: str, message: str, name: str = "") -> None: ...
        def _at_home(self) -> None: ...

    _files: Outgoing | None = None  # made with the first file

    def log_artifact(self, local_path: LocalPath, artifact_path: LocalPath | None = None, *, copy: bool = True) -> None:
        """Log a file: `log_artifact("model.pt", "models")` makes `models/model.pt`. A directory, with all in it.

        It is copied at once, so you may change or delete it after this; with `copy=False` it is not, and has to stay
        as it is until it is sent. What is at this path already is replaced.
        """
        self._guarded(lambda: self._take(local_path, artifact_path, copy=copy, inside=False))

    def log_artifacts(self, local_dir: LocalPath, artifact_path: LocalPath | None = None, *, copy: bool = True) -> None:
        """Log all files in a directory and below it, under their names there. As with `log_artifact`."""
        self._guarded(lambda: self._take(local_dir, artifact_path, copy=copy, inside=True))

    def log_text(self, text: str, path: str) -> None:
        """Log a text as a file, in UTF-8."""
        self._guarded(lambda: self._make("text", text, path))

    def log_dict(self, dictionary: Mapping[str, Any] | list[Any], path: str) -> None:
        """Log a dict, or a list, as JSON; as YAML where the path ends in .yaml or .yml and PyYAML is installed."""
        self._guarded(lambda: self._make("document", dictionary, path))

    def log_figure(self, figure: Any, path: str) -> None:
        """Log a figure of matplotlib, in the format that the path ends in, or one of Plotly, as .html say."""
        self._guarded(lambda: self._make("figure", figure, path))

    def log_image(self, image: Any, path: str) -> None:
        """Log an image of Pillow, or an array or tensor: H x W, H x W x C or C x H x W; 0 to 255, or floats 0 to 1."""
        self._guarded(lambda: self._make("image", image, path))

    def log_table(self, table: Any, path: str) -> None:
        """Log a dict of columns, a list of dicts, or a DataFrame, as the path ends: .json, .csv or .parquet."""
        self._guarded(lambda: self._make("table", table, path))

    @property
    def unsent(self) -> int:
        """How many files are not known to be stored."""
        return len(self._files.left) if self._files is not None else 0

    def _outgoing(self) -> Outgoing:
        if (files := self._files) is None:
            plan, sender = self._plan, self._sender
            made = Outgoing(
                self.id,
                artifacts_address(plan.address),
                plan.pace,
                plan.spool_dir,
                plan.limits,
                durable=plan.durable,
                offline=plan.offline,
                # A run that the server does not know is made by its stream.
                patient=lambda: not sender.state.over,
            )
            # One step, so that what a thread or a signal handler has made meanwhile is taken.
            files = self.__dict__.setdefault("_files", made)
        return files

    def _take(self, local_path: LocalPath, artifact_path: LocalPath | None, *, copy: bool, inside: bool) -> None:
        self._at_home()
        if not os.fspath(local_path):  # a variable that is not set: the current directory would be a surprise
            self._refuse("path", "a file without a name is not logged", "")
            return
        local = Path(os.path.abspath(local_path))  # noqa: PTH100  `..` and `.` have names, links keep theirs
        into = [os.fspath(artifact_path).replace("\\", "/").removesuffix("/")] if artifact_path else []
        if not local.is_dir():
            self._file(local, "/".join([*into, local.name]), copy=copy)
            return
        into += [] if inside else [local.name]

        def unreadable(error: OSError) -> None:
            self._refuse("directory", f"{error.filename} cannot be read ({error.strerror})", str(error.filename))

        for file in paths.files_below(local, unreadable):
            self._file(local / file, "/".join([*into, file]), copy=copy)

    def _file(self, local: Path, path: str, *, copy: bool) -> None:
        self._put(path, lambda files, good: files.file(local, good, copy=copy))

    def _make(self, kind: str, content: object, path: str) -> None:
        self._at_home()
        try:
            data: bytes = getattr(logged, kind)(content, path)
        except Exception as error:  # noqa: BLE001  whatever a foreign library raises
            why = f"the {kind} {shown(path)} is not logged: {type(error).__name__}: {shown(error, str, 200)}"
            self._refuse(kind, why, str(path))
        else:
            self._put(path, lambda files, good: files.content(data, good))

    def _put(self, path: str, put: Callable[[Outgoing, str], None]) -> None:
        try:
            put(self._outgoing(), paths.artifact_path(path))
        except (ValueError, TypeError) as error:
            self._refuse("path", f"{error}; what was to be logged there is left out", shown(path))
        except Unlogged as error:
            self._refuse(error.kind, str(error), path if error.about_it else "")

    def _refuse(self, kind: str, message: str, name: str) -> None:
        self._count(1)
        self._warn(kind, message, name)

    # The end.

    def _end_files(self) -> bool:
        """Tells what is not sent, and lets go of the rest. Returns whether all is sent; offline, taken."""
        files = self._files
        if files is None:
            return True
        if not files.left:
            files.stop(timeout=1.0)
            return files.refused == 0
        offline = self._plan.offline
        taken = offline and not files.lost
        _log.log(
            logging.WARNING if taken else logging.ERROR, "run %s: %s%s", self.id, "offline; " * offline, files.fate()
        )
        if files.settled:
            files.stop(timeout=1.0)
        return taken
