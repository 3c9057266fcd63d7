"""What the written pages say of the code is held against the code: links, kinds, reasons, defaults, metrics."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from pgtend.api import reasons
from pgtend.api.conditions import Reason
from pgtend.api.kinds import KINDS
from pgtend.api.postgrestarget import Thresholds
from pgtend.app import domains
from pgtend.telemetry.metrics import METRICS

ROOT = Path(__file__).parents[2]
FOLDERS = (".", "docs", "argocd", "manifests", "changelog.d")
PAGES = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.md"))]
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """As GitHub makes them."""
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(text)}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_every_kind_that_is_tended_has_a_row_and_a_page() -> None:
    readme = (ROOT / "README.md").read_text()
    tended = set(re.findall(r'"(\w+)": .*\.reconcile\b', Path(domains.__file__).read_text()))
    assert {"PostgresTarget", "PostgresOperation"} <= tended
    for kind in (kind for kind in KINDS if kind.name in tended):
        row = next((line for line in readme.splitlines() if line.startswith(f"| `{kind.name}` |")), None)
        assert row is not None, kind.name
        assert re.search(r"\(docs/[a-z]+\.md\)", row), kind.name
        page = re.search(r"\((docs/[a-z]+\.md)\)", row)
        assert page is not None
        text = (ROOT / page.group(1)).read_text()
        for condition in kind.conditions:
            assert f"`{condition}`" in text, (kind.name, condition)


def test_reasons_that_pages_name_exist() -> None:
    known = {
        str(reason)
        for item in vars(reasons).values()
        if isinstance(item, type) and issubclass(item, Reason)
        for reason in item
    }
    for page in PAGES:
        for reason in re.findall(r"`(?:[A-Z]\w+=)?(?:True|False|Unknown)/(\w+)`", page.read_text()):
            assert reason in known, (page.name, reason)


def test_thresholds_in_the_text_are_the_defaults() -> None:
    page = (ROOT / "docs" / "targets.md").read_text()
    table = page.split("### Thresholds", 1)[1].split("\n### ", 1)[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| `")]
    told = {name.strip("`"): (warning, critical, wait) for name, warning, critical, wait in rows}
    defaults = Thresholds().model_dump(mode="json", by_alias=True)
    assert told == {
        name: (one["warning"] or "", one["critical"] or "", one["for"] if one["for"] != "0s" else "")
        for name, one in defaults.items()
    }


def test_metrics_that_pages_name_exist() -> None:
    for path in (ROOT / "operator").rglob("*.py"):  # a kind's metrics are there when its code is
        if "registry=METRICS.registry" in path.read_text():
            importlib.import_module(".".join(path.relative_to(ROOT / "operator").with_suffix("").parts))
    known = {family.name for family in METRICS.registry.collect()}
    for page in PAGES:
        for name in re.findall(r"`(pgtend_[a-z_]+)[`{]", page.read_text()):
            assert name.removesuffix("_total") in known, (page.name, name)
