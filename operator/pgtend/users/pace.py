"""How many roles of a target may be dropped or disabled at once: what stops a mistake while somebody can still see it.

A pass begins with the first such act and lasts some seconds; what is beyond the target's maxDestructivePerPass waits
for the next. The brake acts within five seconds, so that it catches all but the first pass or two.
"""

from __future__ import annotations

from pgtend.api.reasons import UserReason as R
from pgtend.core.clock import Clock
from pgtend.core.findings import ObjectKey
from pgtend.users.state import Problem

PASS_SECONDS = 4.0
"""Fifty users that are deleted together are gone within a minute, with the default of five."""


class Pace:
    """Of all targets; only their lanes ask, one at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._passes: dict[ObjectKey, tuple[float, int]] = {}

    def take(self, target: ObjectKey, most: int) -> Problem | None:
        """Leave to drop or disable one role now, or why not yet."""
        refused = self.refused(target, most)
        if refused is None:
            started, used = self._passes.get(target, (self._clock.monotonic(), 0))
            self._passes[target] = started, used + 1
        return refused

    def refused(self, target: ObjectKey, most: int) -> Problem | None:
        """Why there would be no leave now; nothing is taken. Who waits need not look at the server meanwhile."""
        if not self.spent(target, most):
            return None
        text = (
            f"waits for its turn: {most} roles of target {target} have just been dropped or disabled, as many as"
            " spec.maxDestructivePerPass allows at once. If this is a mistake, set the brake"
        )
        return Problem(reason=R.TOO_MANY_AT_ONCE, object=str(target), message=text)

    def spent(self, target: ObjectKey, most: int) -> bool:
        """Whether the pass that runs has no room left."""
        started, used = self._passes.get(target, (0.0, 0))
        if used and self._clock.monotonic() - started >= PASS_SECONDS:
            del self._passes[target]
            return False
        return used >= most

    def wait(self, target: ObjectKey) -> float:
        """Seconds until the next pass."""
        started, used = self._passes.get(target, (0.0, 0))
        return max(0.1, started + PASS_SECONDS - self._clock.monotonic() + 0.05) if used else 0.1
