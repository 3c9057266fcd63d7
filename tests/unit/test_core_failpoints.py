"""Failpoints: free and silent unless told, exact when told, and all of them listed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pgtend.core import failpoints
from pgtend.core.failpoints import failpoint

PACKAGE = Path(failpoints.__file__).parents[1]


def run(code: str, *, active: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own, since kill means kill."""
    program = f"from pgtend.core.failpoints import failpoint\n{code}\nprint('survived')"
    environment = {"PYTHONPATH": str(PACKAGE.parent), "PGTEND_FAILPOINTS": active}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def test_nothing_happens_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_active", {})
    failpoint("unit.test.here")


def test_kill_is_a_real_crash() -> None:
    done = run("try:\n  failpoint('a.b')\nfinally:\n  print('cleaned up')", active="a.b=kill")
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")
    assert run("failpoint('a.c')", active="a.b=kill").stdout == "survived\n"


def test_kill_at_the_second_pass() -> None:
    done = run("failpoint('a.b'); print('once', flush=True); failpoint('a.b')", active="x.y=raise;a.b=kill@2")
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "once\n")


def test_raise_and_unknown_act(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_active", {"a.b": "raise", "a.c": "dance"})
    with pytest.raises(RuntimeError, match=r"failpoint a\.b"):
        failpoint("a.b")
    with pytest.raises(ValueError, match="unknown act 'dance'"):
        failpoint("a.c")


def test_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(failpoints, "_active", {"a.b": "sleep:2.5"})
    monkeypatch.setattr("time.sleep", slept.append)
    failpoint("a.b")
    assert slept == [2.5]


def test_hook_runs_until_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_active", {})
    passed: list[str] = []
    take_away = failpoints.on("a.b", lambda: passed.append("a.b"))
    failpoint("a.b")
    failpoint("a.c")
    take_away()
    failpoint("a.b")
    assert passed == ["a.b"]


def test_names_finds_every_call(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "one.py").write_text("failpoint('b.two')\nasync def f():\n    failpoint('a.one')\n")
    (tmp_path / "deep" / "two.py").write_text("import x\nx.failpoint('c.three')\nother('d')\n'failpoint(\"no\")'\n")
    assert failpoints.names(tmp_path) == ["a.one", "b.two", "c.three"]


def test_names_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("failpoint(f'a.{x}')\n")
    with pytest.raises(ValueError, match=r"one\.py:1: a failpoint is named by a plain string"):
        failpoints.names(tmp_path)


def test_every_failpoint_of_the_package_is_well_named() -> None:
    """`<package>.<module or step>.<place>`, so that the crash matrix can say where it killed."""
    for name in failpoints.names(PACKAGE):
        parts = name.split(".")
        assert len(parts) >= 2, name
        assert (PACKAGE / parts[0]).is_dir(), name
