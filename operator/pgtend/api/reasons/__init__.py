"""Every reason that a condition can give, one enum per kind, each with its meaning and what to do next.

The pages in docs/reasons are generated from here, and the field ledger wants a test for each. A reason's value is API:
it is never renamed once released. Reasons that several kinds share are spelled the same in each.
"""

from __future__ import annotations

from pgtend.api.reasons.backup import BackupReason
from pgtend.api.reasons.destination import DestinationReason
from pgtend.api.reasons.maintenance import RunReason, WindowReason
from pgtend.api.reasons.operation import OperationReason
from pgtend.api.reasons.target import TargetReason
from pgtend.api.reasons.user import UserReason

__all__ = [
    "BackupReason",
    "DestinationReason",
    "OperationReason",
    "RunReason",
    "TargetReason",
    "UserReason",
    "WindowReason",
]
