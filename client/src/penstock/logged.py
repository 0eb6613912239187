"""What `log_text`, `log_dict`, `log_figure`, `log_image` and `log_table` are given, as the bytes of a file.

The ending of the file's name says which format. Raises ValueError or ImportError where there is none such, and
whatever a library raises that does not take what it is given.
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from penstock.calls import need


def text(content: object, path: str = "") -> bytes:
    """As UTF-8, whatever the path ends in. Bytes are taken as they are."""
    if isinstance(content, (bytes, bytearray, memoryview)):
        return bytes(content)
    return (content if isinstance(content, str) else str(content)).encode("utf-8", "surrogatepass")


def document(content: object, path: str) -> bytes:
    """As JSON; in a .yaml or .yml as YAML where PyYAML is installed, else as JSON, which YAML's readers read."""
    plain = _plain(content)
    if _ending(path) in ("yaml", "yml"):
        try:
            yaml = need("yaml", "YAML")
        except ImportError:
            pass
        else:
            exact = json.loads(json.dumps(plain))  # it takes no subclasses of text and numbers
            return text(yaml.safe_dump(exact, allow_unicode=True, sort_keys=False))
    return text(json.dumps(plain, indent=2, ensure_ascii=False) + "\n")


def figure(drawn: Any, path: str) -> bytes:
    """Of matplotlib in any format that it writes; of Plotly as .html, or as an image where Kaleido is installed."""
    ending = _ending(path)
    if hasattr(drawn, "savefig"):
        file = io.BytesIO()
        drawn.savefig(file, format=ending or "png")
        return file.getvalue()
    if hasattr(drawn, "write_html"):
        if ending in ("html", "htm", ""):
            page = io.StringIO()
            drawn.write_html(page, include_plotlyjs="cdn", auto_open=False)
            return text(page.getvalue())
        data: bytes = drawn.to_image(format=ending)
        return data
    raise ValueError(f"{type(drawn).__name__} is no figure of matplotlib or Plotly")


def image(picture: Any, path: str) -> bytes:
    """Of Pillow, or an array or tensor of height x width, with 1, 3 or 4 channels last, or first as PyTorch has them.

    Floats are taken to be from 0 to 1, whole numbers from 0 to 255.
    """
    pillow = need("PIL.Image", "log_image")
    if not isinstance(picture, pillow.Image):
        picture = pillow.fromarray(_pixels(picture))
    pillow.init()
    kind = pillow.registered_extensions().get(f".{_ending(path) or 'png'}")
    if kind is None:
        raise ValueError(f"{path!r} ends like no image; write .png, say")
    if kind == "JPEG" and picture.mode not in ("L", "RGB", "CMYK"):
        picture = picture.convert("RGB")  # it has no transparency
    file = io.BytesIO()
    picture.save(file, format=kind)
    return file.getvalue()


def table(data: Any, path: str) -> bytes:
    """A dict of columns, a list of dicts, or a DataFrame: as .csv, .parquet, or .json as MLflow has it."""
    names, rows = _columns(data)
    match _ending(path):
        case "csv":
            file = io.StringIO(newline="")
            csv.writer(file).writerows([names, *([_cell(value) for value in row] for row in rows)])
            return text(file.getvalue())
        case "parquet":
            return _parquet(data, names, rows)
        case "json" | "":
            return text(json.dumps({"columns": names, "data": [[_plain(value) for value in row] for row in rows]}))
    raise ValueError(f"{path!r} ends like no table; write .json, .csv or .parquet")


def _ending(path: str) -> str:
    return PurePosixPath(path).suffix[1:].lower()


def _plain(value: Any) -> Any:
    """What JSON and YAML can say, all the way down. NaN and infinities, of which JSON knows nothing, become null."""
    match value:
        case float():
            return float(value) if math.isfinite(value) else None
        case None | bool() | int() | str():
            return value
        case Mapping():
            return {key if isinstance(key, str) else str(key): _plain(each) for key, each in value.items()}
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat() if value == value else None  # noqa: PLR0124  pandas' NaT is none
        case list() | tuple() | set() | frozenset():
            return [_plain(each) for each in value]
    if hasattr(value, "tolist"):  # of NumPy, and tensors
        found = value.tolist()
        return _plain(found) if type(found) is not type(value) else str(value)
    return str(value)


def _cell(value: Any) -> Any:
    plain = _plain(value)
    return json.dumps(plain) if isinstance(plain, (list, dict)) else plain


def _pixels(picture: Any) -> Any:
    numpy = need("numpy", "log_image of an array")
    if hasattr(picture, "detach"):  # a tensor, wherever it is
        picture = picture.detach().cpu()
    array = numpy.asarray(picture)
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = numpy.moveaxis(array, 0, 2)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ValueError(f"an array of shape {array.shape} is no image: height x width, x 3 or 4 channels if any")
    if array.dtype.kind == "b":
        return array.astype("uint8") * 255
    if array.dtype.kind == "f":
        return (numpy.nan_to_num(array).clip(0.0, 1.0) * 255.0).round().astype("uint8")
    if array.dtype.kind not in "iu":
        raise ValueError(f"an array of {array.dtype} is no image")
    return array.clip(0, 255).astype("uint8")


def _columns(data: Any) -> tuple[list[str], list[Sequence[Any]]]:
    """Names and rows."""
    if hasattr(data, "to_dict") and hasattr(data, "columns"):
        found = data.to_dict(orient="split")
        return [str(name) for name in found["columns"]], found["data"]
    if isinstance(data, Mapping):
        columns = {str(name): _listed(values) for name, values in data.items()}
        lengths = {len(values) for values in columns.values()}
        if len(lengths) > 1:
            raise ValueError(f"columns of {' and '.join(map(str, sorted(lengths)))} values make no table")
        return list(columns), list(zip(*columns.values(), strict=True))
    if isinstance(data, (list, tuple)) and all(isinstance(row, Mapping) for row in data):
        names = list(dict.fromkeys(name for row in data for name in row))
        return [str(name) for name in names], [[row.get(name) for name in names] for row in data]
    raise ValueError(f"{type(data).__name__} is no table: a dict of columns, a list of dicts or a DataFrame is")


def _listed(values: Any) -> list[Any]:
    """A column. A single value is one of one row."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    return list(values) if isinstance(values, Iterable) and not isinstance(values, (str, bytes, Mapping)) else [values]


def _parquet(data: Any, names: list[str], rows: list[Sequence[Any]]) -> bytes:
    file = io.BytesIO()
    if hasattr(data, "to_parquet"):
        data.to_parquet(file, index=False)
        return file.getvalue()
    arrow = need("pyarrow", "Parquet")
    made = arrow.table({name: [row[at] for row in rows] for at, name in enumerate(names)})
    need("pyarrow.parquet", "Parquet").write_table(made, file)
    return file.getvalue()
