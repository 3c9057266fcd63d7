"""Which files are generated, whether they are fresh, and which are left over from a kind that is gone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pgtend.api.base import Kind
from pgtend.codegen import crd, reasons, reference, snapshot

CHART = Path("helm/pgtend/templates/crds.yaml")
CRDS = Path("crds")
REASONS = Path("docs/reasons")
REFERENCE = Path("docs/reference")
SNAPSHOT = Path("tests/unit/crd_snapshot")


def outputs(kinds: Sequence[Kind]) -> dict[Path, str]:
    """Relative path -> text of every generated file but the snapshot."""
    files = {CHART: crd.chart_file(kinds)}
    for kind in kinds:
        files[CRDS / crd.file_name(kind)] = crd.crd_file(kind)
        files[REFERENCE / reference.file_name(kind)] = reference.page(kind)
        files[REASONS / reasons.file_name(kind)] = reasons.page(kind)
    files[REFERENCE / "README.md"] = reference.index(kinds)
    files[REASONS / "README.md"] = reasons.index(kinds)
    return files


def snapshots(kinds: Sequence[Kind]) -> dict[Path, str]:
    """Relative path -> text of the snapshot as it would be now."""
    return {SNAPSHOT / f"{kind.plural}.json": snapshot.dump(snapshot.shape(kind)) for kind in kinds}


def stale(root: Path, files: dict[Path, str]) -> list[str]:
    """The files that are missing, or differ from what would be written now."""
    return sorted(str(path) for path, text in files.items() if _read(root / path) != text)


def left_over(root: Path, files: dict[Path, str]) -> list[Path]:
    """Generated files of kinds that are gone, told from written ones by their first line."""
    candidates = [*(root / CRDS).glob("*.yaml"), *(root / REFERENCE).glob("*.md"), *(root / REASONS).glob("*.md")]
    marks = (crd.HEADER.strip(), reference.HEADER.strip())
    found = []
    for path in candidates:
        relative = path.relative_to(root)
        if relative not in files and path.read_text(encoding="utf-8").startswith(marks):
            found.append(relative)
    return sorted(found)


def breaks(root: Path, kinds: Sequence[Kind]) -> list[str]:
    """What would break users of the released shape, kinds that are gone included."""
    found = []
    current = {kind.plural: snapshot.shape(kind) for kind in kinds}
    for path in sorted((root / SNAPSHOT).glob("*.json")):
        released = json.loads(path.read_text(encoding="utf-8"))
        if path.stem in current:
            found += snapshot.breaks(released, current[path.stem])
        else:
            found.append(f"{released['kind']}: the kind is gone")
    return found


def write(root: Path, files: dict[Path, str]) -> list[str]:
    """Write what is stale; returns its paths."""
    written = stale(root, files)
    for name in written:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[Path(name)], encoding="utf-8")
    return written


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
