"""The ledger reads every form of the mark, counts only what runs on real servers, and says what is missing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pgtend.api.kinds import KINDS
from pgtend.codegen.fields import reason_names

PATH = Path(__file__).parents[1] / "ledger.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pgtend_test_ledger", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


ledger = load()

SOURCE = """
import pytest
from x import covers

pytestmark = [pytest.mark.matrix, pytest.mark.covers("K.spec.module")]
'covers("K.spec.string")'

@pytest.mark.covers("K.spec.a", "K.reason.B")
async def test_one(server): ...

class TestTwo:
    pytestmark = pytest.mark.covers("K.spec.attribute")

    @covers("K.spec.c[].d")
    def test_three(self):
        helper("K.spec.no")
        self.covers("K.spec.no")

@pytest.mark.covers("K.spec.class")
class TestFour:
    def test_five(self): ...

@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.covers("K.spec.param"))])
def test_six(x): ...

@pytest.mark.covers(*NAMES, f"K.spec.{x}")
def test_seven(): ...
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for folder in ("postgres", "unit", "e2e/deep"):
        (tmp_path / "tests" / folder).mkdir(parents=True)
    (tmp_path / "tests/postgres/test_a.py").write_text(SOURCE)
    (tmp_path / "tests/unit/test_b.py").write_text("@pytest.mark.covers('K.spec.unit')\ndef test_u(): ...\n")
    (tmp_path / "tests/e2e/deep/test_c.py").write_text("@pytest.mark.covers('K.spec.a')\ndef test_e(): ...\n")
    (tmp_path / "tests/e2e/helper.py").write_text("raise SystemExit('imported')\n# covers\n")
    return tmp_path


def test_every_form_of_the_mark(tree: Path) -> None:
    assert [(mark.name, mark.test, mark.counts) for mark in ledger.collect(tree)] == [
        ("K.spec.a", "tests/e2e/deep/test_c.py::test_e", True),
        ("K.spec.module", "tests/postgres/test_a.py", True),
        ("K.spec.class", "tests/postgres/test_a.py::TestFour", True),
        ("K.spec.attribute", "tests/postgres/test_a.py::TestTwo", True),
        ("K.spec.c[].d", "tests/postgres/test_a.py::TestTwo::test_three", True),
        ("K.reason.B", "tests/postgres/test_a.py::test_one", True),
        ("K.spec.a", "tests/postgres/test_a.py::test_one", True),
        (None, "tests/postgres/test_a.py::test_seven", True),
        ("K.spec.param", "tests/postgres/test_a.py::test_six", True),
        ("K.spec.unit", "tests/unit/test_b.py::test_u", False),
    ]


def test_rows_and_what_is_wrong(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["K.spec.a", "K.spec.c.d", "K.spec.unit", "K.reason.B", "K.reason.C"]
    made = ledger.build(wanted=wanted, marks=ledger.collect(tree))
    assert made.rows == {
        "K.spec.a": ["tests/e2e/deep/test_c.py::test_e", "tests/postgres/test_a.py::test_one"],
        "K.spec.c.d": ["tests/postgres/test_a.py::TestTwo::test_three"],
        "K.spec.unit": [],
        "K.reason.B": ["tests/postgres/test_a.py::test_one"],
        "K.reason.C": [],
    }
    assert made.empty == ["K.spec.unit", "K.reason.C"]
    assert [mark.name for mark in made.unknown] == [
        "K.spec.module", "K.spec.class", "K.spec.attribute", None, "K.spec.param",
    ]  # fmt: skip
    ledger.report(made)
    told = capsys.readouterr().err
    assert "tests/postgres/test_a.py:5: the mark names 'K.spec.module', which does not exist\n" in told
    assert "tests/postgres/test_a.py:26: the mark is computed; write it plainly\n" in told
    assert "2 of 5 rows have no test on a real server or API:\n  K.spec.unit\n  K.reason.C\n" in told


@pytest.mark.parametrize(
    ("pattern", "rows"),
    [
        ("K.spec.*.username", ["K.spec.a.username", "K.spec.b.username"]),
        ("K.spec.*", []),
        ("K.spec.a.*", ["K.spec.a.username", "K.spec.a.key"]),
        ("K.spec.a", []),
        ("*.spec.b.username", ["K.spec.b.username"]),
    ],
)
def test_a_star_is_one_segment_and_a_parent_is_no_leaf(pattern: str, rows: list[str]) -> None:
    mark = ledger.Mark(name=pattern, test="tests/postgres/t.py::t", where="t.py:1")
    made = ledger.build(wanted=["K.spec.a.username", "K.spec.a.key", "K.spec.b.username"], marks=[mark])
    assert [row for row, tests in made.rows.items() if tests] == rows
    assert made.unknown == ([] if rows else [mark])


def test_the_page(tree: Path) -> None:
    made = ledger.build(wanted=["K.spec.a", "K.reason.C"], marks=ledger.collect(tree))
    page = ledger.page(made)
    assert (
        "| `K.spec.a` | `tests/e2e/deep/test_c.py::test_e`<br>`tests/postgres/test_a.py::test_one` |\n"
        "| `K.reason.C` | **nothing** |\n"
    ) in page


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "tests/postgres").mkdir(parents=True)
    test = tmp_path / "tests/postgres/test_a.py"

    def run(*arguments: str) -> int:
        return ledger.main([*arguments, "--root", str(tmp_path)])  # type: ignore[no-any-return]

    assert run("--check") == 1
    told = capsys.readouterr().err
    assert "ledger.md is stale" in told
    assert f"{len(ledger.wanted_rows())} of {len(ledger.wanted_rows())} rows" in told
    names = ", ".join(repr(name) for name in ledger.wanted_rows())
    test.write_text(f"@pytest.mark.covers({names})\ndef test_all(): ...\n")
    assert run() == 0
    assert run("--check") == 0
    assert capsys.readouterr().err == ""
    test.write_text(f"@pytest.mark.covers({names}, 'PostgresTarget.spec.nothing')\ndef test_all(): ...\n")
    assert run("--check") == 1
    assert run() == 1
    assert "names 'PostgresTarget.spec.nothing', which does not exist" in capsys.readouterr().err


def test_every_kind_has_rows() -> None:
    wanted = ledger.wanted_rows()
    assert len(wanted) == len(set(wanted))
    for kind in KINDS:
        assert [name for name in wanted if name.startswith(f"{kind.name}.spec.")]
        assert reason_names(kind)[0] in wanted


def test_no_mark_of_this_checkout_names_nothing() -> None:
    made = ledger.build(wanted=ledger.wanted_rows(), marks=ledger.collect(PATH.parents[1]))
    assert not made.unknown
