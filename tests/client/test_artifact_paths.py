"""Paths of artifacts: the client's rules are the server's, and no server leads a download out of its directory."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.paths import artifact_directory, artifact_path, below
from penstock_server.model.artifacts import check_path
from penstock_server.model.errors import InvalidArgument

NAMES = st.text(st.sampled_from("ab.:/C\0\x1fé\ud800 \x7f~%"), max_size=8)


@given(st.one_of(NAMES, st.text(max_size=300).map(lambda text: text * 3)).filter(lambda text: "\\" not in text))
@example("a/" + 255 * "b")
@example("a/" + 256 * "b")
@example("é" * 128)
@example("ab/" * 266 + "ab")
@example("ab/" * 266 + "abc")
@example("C:")
@example("con/a. ")
def test_what_the_client_takes_is_what_the_server_takes(path: str) -> None:
    try:
        check_path(path)
    except InvalidArgument:
        with pytest.raises(ValueError, match=r"write a relative path"):
            artifact_path(path)
    else:
        assert artifact_path(path) == path


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("models\\best\\weights.pt", "models/best/weights.pt"),
        (PurePosixPath("models/a b.pt"), "models/a b.pt"),
        (PureWindowsPath("models\\100%.pt"), "models/100%.pt"),
    ],
)
def test_separators_of_windows_are_turned_everywhere(given: str, path: str) -> None:
    assert artifact_path(given) == path


@pytest.mark.parametrize("path", ["", "/etc/passwd", "..\\up", "C:\\models", "a//b", "a/", "a/./b", "\\\\host\\share"])
def test_a_path_that_is_refused_is_told_what_a_good_one_is(path: str) -> None:
    with pytest.raises(ValueError, match=r"models/best/weights\.pt"):
        artifact_path(path)


def test_a_path_is_text() -> None:
    for path in (b"model.pt", 3, None):
        with pytest.raises(TypeError):
            artifact_path(path)  # type: ignore[arg-type]


def test_a_directory_may_end_in_a_separator() -> None:
    assert [artifact_directory(path) for path in ("", "models", "models/", "a\\b\\")] == ["", "models", "models", "a/b"]
    for path in ("..", "a//", "//"):
        with pytest.raises(ValueError, match="relative path"):
            artifact_directory(path)


@pytest.mark.parametrize("path", ["", "..", "../x", "/x", "a/../../x", "a\\b", "C:/x", "a//b", "a\nb", "\0"])
def test_what_leads_out_of_the_directory_is_not_written(path: str, tmp_path: Path) -> None:
    for windows in (False, True):
        with pytest.raises(ValueError, match="cannot be written"):
            below(tmp_path, path, windows=windows)


@pytest.mark.parametrize(
    "name", ["con", "NUL.txt", "com1", "LPT9.log", "CONIN$", "ab:c", "a?", "dot.", "space ", "<a>"]
)
def test_what_windows_takes_for_something_else_is_not_written_there(name: str, tmp_path: Path) -> None:
    assert below(tmp_path, f"models/{name}", windows=False) == tmp_path / "models" / name
    for path in (name, f"{name}/model.pt", f"models/{name}"):
        with pytest.raises(ValueError, match="Windows"):
            below(tmp_path, path, windows=True)


@pytest.mark.parametrize("path", [".big.bin.penstock-part", "models/.a.PENSTOCK-part"])
def test_no_file_takes_the_place_of_what_came_of_another(path: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broke off"):
        below(tmp_path, path)
    assert below(tmp_path, f"{path}/x") == tmp_path / path / "x"


def test_good_names_are_written_everywhere(tmp_path: Path) -> None:
    for path in ("models/best.pt", "console/nullable", "com10", "Modèle 100%.pt", ".hidden"):
        assert below(tmp_path, path, windows=True) == below(tmp_path, path, windows=False) == tmp_path / path
