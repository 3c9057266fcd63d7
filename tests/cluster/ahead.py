"""`python ahead.py SECONDS operator ...`: pgtend with a clock that is ahead, for what takes days. Only the clock that
is handed in is moved: time-outs, leases and back-off run as ever."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta

from pgtend.core import clock


class Ahead(clock.SystemClock):
    by = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.by


if __name__ == "__main__":
    Ahead.by = timedelta(seconds=float(sys.argv.pop(1)))
    clock.SystemClock = Ahead  # type: ignore[misc]
    from pgtend.__main__ import main

    main()
