"""The patterns of our API, which know `*` only, compiled so that no pattern and no name make matching slow.

Whoever may write a DatabaseUser writes the pattern, and whoever may create a table the name: `*a*a*a*b` against `aaaa…`
by a plain `.*` tries every way to spread the stars, and the whole operator stands still. What stands between two stars
is taken where it is first found: that is always right, and never taken back.
"""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(maxsize=4096)
def pattern(text: str) -> re.Pattern[str]:
    """For fullmatch: `*` stands for any characters, all else for itself. Time grows as pattern times name at most."""
    first, *rest = text.split("*")
    if not rest:
        return re.compile(re.escape(first))
    between = "".join(f"(?>.*?{re.escape(part)})" for part in rest[:-1] if part)
    return re.compile(f"{re.escape(first)}{between}.*{re.escape(rest[-1])}", re.DOTALL)
