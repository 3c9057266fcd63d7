"""The command that `make generate` and CI call: write everything that is derived, or say what is stale."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pgtend.api.base import Kind
from pgtend.api.kinds import KINDS
from pgtend.codegen import crd, files, snapshot, structural


def main(arguments: Sequence[str] | None = None, *, kinds: Sequence[Kind] = KINDS) -> int:
    """0 where all is well; 1 where files are stale, a schema is wrong or the released API would break."""
    parser = argparse.ArgumentParser(prog="python -m pgtend.codegen", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail and list what is stale")
    parser.add_argument("--accept-snapshot", action="store_true", help="take the API as it is now for the released one")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[3], help="the checkout")
    given = parser.parse_args(arguments)
    root: Path = given.root

    wrong = [
        f"{kind.name}: {problem}"
        for kind in kinds
        for problem in structural.problems(crd.crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    ]
    if wrong:
        return _fail("the API server would refuse these schemas:", wrong)
    made, shapes = files.outputs(kinds), files.snapshots(kinds)
    broken = [] if given.accept_snapshot else files.breaks(root, kinds)
    if given.check:
        old = files.stale(root, made | shapes) + [str(path) for path in files.left_over(root, made)]
        if broken:
            _fail(f"the released API would break; {snapshot.HOW}:", broken)
        if old:
            _fail("stale, run `python -m pgtend.codegen`:", old)
        return 1 if broken or old else 0

    for path in files.left_over(root, made):
        (root / path).unlink()
        print(f"removed {path}")
    for name in files.write(root, made):
        print(f"wrote {name}")
    if broken:
        return _fail(f"the snapshot was left alone, since the released API would break; {snapshot.HOW}:", broken)
    for path in sorted((root / files.SNAPSHOT).glob("*.json")):
        if path.relative_to(root) not in shapes:
            path.unlink()
    for name in files.write(root, shapes):
        print(f"wrote {name}")
    return 0


def _fail(headline: str, lines: Sequence[str]) -> int:
    print(headline, file=sys.stderr)
    for line in lines:
        print(f"  {line}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
