"""What `log_text`, `log_dict`, `log_figure`, `log_image` and `log_table` make of what they are given."""

from __future__ import annotations

import datetime
import enum
import io
import json
import sys
from collections import UserDict
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from matplotlib.figure import Figure
from PIL import Image

from penstock import logged

mpl.use("Agg")


class Colour(enum.IntEnum):
    RED = 1


def loaded(data: bytes) -> Any:
    return json.loads(data)


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_text_is_utf_8() -> None:
    assert logged.text("Größe\n", "notes.txt") == "Größe\n".encode()
    assert logged.text(17) == b"17"
    assert logged.text("Größe".encode("latin-1")) == b"Gr\xf6\xdfe", "bytes are taken as they are"
    assert logged.text(memoryview(b"as they are")) == b"as they are"


def test_a_dict_is_json_whatever_is_in_it() -> None:
    given = UserDict(
        {
            "lr": np.float32(0.5),
            1: [np.int64(3), (1, 2), {"a"}],
            "at": datetime.date(2026, 11, 21),
            "nan": float("nan"),
            "array": np.eye(2),
            "colour": Colour.RED,
            "thing": complex(1, 2),
            "none": None,
            "ä": True,
        }
    )
    assert loaded(logged.document(given, "x.json")) == {
        "lr": 0.5,
        "1": [3, [1, 2], ["a"]],
        "at": "2026-11-21",
        "nan": None,
        "array": [[1.0, 0.0], [0.0, 1.0]],
        "colour": 1,
        "thing": "(1+2j)",
        "none": None,
        "ä": True,
    }


def test_yaml_where_there_is_yaml() -> None:
    yaml = pytest.importorskip("yaml")
    data = logged.document({"b": np.float64(1.5), "a": {"c": [Colour.RED, "x"]}}, "x.yml")
    assert data.startswith(b"b: 1.5\n")
    assert yaml.safe_load(data) == {"b": 1.5, "a": {"c": [1, "x"]}}


def test_yaml_without_yaml_is_json_which_is_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert loaded(logged.document({"a": [1]}, "x.yaml")) == {"a": [1]}


@pytest.mark.parametrize(
    ("path", "begins"), [("a/plot.png", b"\x89PNG"), ("plot.svg", b"<?xml"), ("plot.pdf", b"%PDF")]
)
def test_a_figure_of_matplotlib(path: str, begins: bytes) -> None:
    figure = Figure()
    figure.subplots().plot([1, 2, 3])
    assert logged.figure(figure, path).startswith(begins)


class PlotlyLike:
    """As Plotly's figures are asked."""

    def write_html(self, file: io.StringIO, **_: object) -> None:
        file.write("<html>plot</html>")

    def to_image(self, format: str) -> bytes:  # noqa: A002
        return f"an image as {format}".encode()


def test_a_figure_of_plotly() -> None:
    assert logged.figure(PlotlyLike(), "plot.html") == b"<html>plot</html>"
    assert logged.figure(PlotlyLike(), "plot.webp") == b"an image as webp"


def test_what_is_no_figure() -> None:
    with pytest.raises(ValueError, match="no figure"):
        logged.figure(3, "plot.png")


def test_images_of_pillow() -> None:
    picture = Image.new("RGBA", (3, 2), (255, 0, 0, 128))
    assert opened(logged.image(picture, "a.png")).getpixel((0, 0)) == (255, 0, 0, 128)
    assert opened(logged.image(picture, "a.jpg")).mode == "RGB"
    with pytest.raises(ValueError, match="no image"):
        logged.image(picture, "a.txt")


@pytest.mark.parametrize(
    ("array", "pixel"),
    [
        (np.full((2, 3), 0.5), 128),
        (np.full((2, 3, 1), 2.0), 255),
        (np.full((2, 3), np.nan), 0),
        (np.full((2, 3, 3), [0.0, 0.5, 1.0], dtype="float16"), (0, 128, 255)),
        (np.full((2, 3, 4), [1, 2, 3, 4], dtype="uint8"), (1, 2, 3, 4)),
        (np.full((2, 3), 300), 255),
        (np.full((2, 3), -1), 0),
        (np.full((2, 3), fill_value=True), 255),
        ([[7, 7, 7], [7, 7, 7]], 7),
    ],
)
def test_images_of_arrays(array: Any, pixel: Any) -> None:
    picture = opened(logged.image(array, "a.png"))
    assert picture.size == (3, 2)
    assert picture.getpixel((2, 1)) == pixel


def test_channels_may_come_first() -> None:
    array = np.moveaxis(np.full((20, 30, 3), [255, 0, 0], "uint8"), 2, 0)
    picture = opened(logged.image(array, "a.png"))
    assert (picture.size, picture.getpixel((2, 1))) == ((30, 20), (255, 0, 0))


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((2, 3, 2)), np.zeros((2, 3), dtype=complex), "text", None])
def test_arrays_that_are_no_image(array: Any) -> None:
    with pytest.raises(ValueError, match="no image"):
        logged.image(array, "a.png")


TABLES: dict[str, Any] = {
    "columns": {"step": [1, 2], "note": ["x", None], "acc": np.array([0.5, np.nan])},
    "rows": [{"step": 1, "note": "x", "acc": 0.5}, {"step": 2, "acc": float("nan")}],
    "frame": pd.DataFrame({"step": [1, 2], "note": ["x", None], "acc": [0.5, np.nan]}),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_tables(table: Any) -> None:
    assert loaded(logged.table(table, "t.json")) == {
        "columns": ["step", "note", "acc"],
        "data": [[1, "x", 0.5], [2, None, None]],
    }
    assert logged.table(table, "t.csv") == b"step,note,acc\r\n1,x,0.5\r\n2,,\r\n"
    read = pyarrow.parquet.read_table(io.BytesIO(logged.table(table, "t.parquet"))).to_pydict()
    assert read["step"] == [1, 2]
    assert read["note"] == ["x", None]


def test_a_table_of_single_values_has_one_row() -> None:
    assert loaded(logged.table({"a": 1, "b": "xy"}, "t.json")) == {"columns": ["a", "b"], "data": [[1, "xy"]]}


@pytest.mark.parametrize(
    ("table", "path"), [({"a": [1], "b": [1, 2]}, "t.json"), (3, "t.json"), ([1], "t.csv"), ({"a": [1]}, "t.xlsx")]
)
def test_what_is_no_table(table: Any, path: str) -> None:
    with pytest.raises(ValueError, match="no table"):
        logged.table(table, path)
