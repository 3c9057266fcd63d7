"""Named places before and after every effect, where a test may kill the process, delay it or run a hook.

They do nothing unless PGTEND_FAILPOINTS is set, e.g. `users.apply.after_secret=kill;backups.dump.locked=sleep:2`.
`kill` is SIGKILL: nothing is cleaned up, as in a real crash. `kill@2` kills at the second pass.
"""

from __future__ import annotations

import ast
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

_hooks: dict[str, Callable[[], None]] = {}
_passes: dict[str, int] = {}


def _configured() -> dict[str, str]:
    text = os.environ.get("PGTEND_FAILPOINTS", "")
    return dict(item.split("=", 1) for item in text.split(";") if "=" in item)


_active = _configured()


def failpoint(name: str) -> None:
    """Give a test its chance to act here. Free of cost where no failpoint is active."""
    if not _active and not _hooks:
        return
    if (hook := _hooks.get(name)) is not None:
        hook()
    act = _active.get(name)
    if act is None:
        return
    _passes[name] = _passes.get(name, 0) + 1
    verb, _, nth = act.partition("@")
    if nth and _passes[name] != int(nth):
        return
    if verb == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif verb.startswith("sleep:"):
        time.sleep(float(verb.removeprefix("sleep:")))
    elif verb == "raise":
        raise RuntimeError(f"failpoint {name}")
    else:
        raise ValueError(f"failpoint {name}: unknown act {act!r}")


def on(name: str, hook: Callable[[], None]) -> Callable[[], None]:
    """Run `hook` whenever `name` is passed, within this process; returns the function that takes it away."""
    _hooks[name] = hook
    return lambda: _hooks.pop(name, None) and None


def names(package: Path) -> list[str]:
    """Every failpoint named in the package's source, sorted: the crash matrix walks this list.

    Raises ValueError where a name is computed, since the matrix would then miss it.
    """
    found: set[str] = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            function = node.func
            called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
            if called != "failpoint":
                continue
            (name,) = node.args or (None,)
            if not isinstance(name, ast.Constant):
                raise ValueError(f"{path}:{node.lineno}: a failpoint is named by a plain string")
            found.add(str(name.value))
    return sorted(found)
