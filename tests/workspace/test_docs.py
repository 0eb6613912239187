"""What the documents say of settings, metrics, commands and each other is so."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase
from pydantic import ByteSize

from penstock_server import telemetry
from penstock_server.config import Settings

ROOT = Path(__file__).parents[2]
OPERATING = (ROOT / "docs" / "operating.md").read_text()
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("server/src/**/*.md")])


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading row that begins with this cell, without their backquotes."""
    lines = OPERATING.partition(f"| {heading} |")[2].splitlines()[2:]
    table = [line for line in lines[: lines.index("")] if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table]


def test_the_table_of_settings_is_that_of_the_server() -> None:
    def shown(default: object) -> str:
        if default is None:
            return ""
        if isinstance(default, bool):
            return str(default).lower()
        return default.human_readable() if isinstance(default, ByteSize) else str(default)

    documented = {name: default for name, default, _ in rows("setting")}
    assert documented == {name: shown(field.default) for name, field in Settings.model_fields.items()}


def test_the_table_of_metrics_is_the_catalogue() -> None:
    def exposed(metric: MetricWrapperBase) -> tuple[str, str]:
        (family,) = metric.describe()
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ",".join(metric._labelnames)
        return f"{name}{{{labels}}}" if labels else name, family.type

    documented = [(name, kind) for name, kind, _ in rows("metric")]
    assert documented == [
        exposed(metric) for metric in vars(telemetry).values() if isinstance(metric, MetricWrapperBase)
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_make_targets_in_documents_exist(document: Path) -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z-]+)", document.read_text()):
        assert re.search(rf"^{target}\b", listed, re.MULTILINE) or f"\n{target}:" in makefile, target


def test_documents_named_in_the_code_exist() -> None:
    sources = [*ROOT.glob("*/src/**/*.py"), *ROOT.glob("protos/**/*.proto"), *ROOT.glob("tests/**/*.py")]
    named = {name for path in sources for name in re.findall(r"\bdocs/[\w/-]+", path.read_text())}
    assert named
    assert not [name for name in named if not list(ROOT.glob(f"{name}*"))]
