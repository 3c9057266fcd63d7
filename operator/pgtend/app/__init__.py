"""The composition root: the only room that knows everything. Builds the parts, starts them in order, stops them."""

from __future__ import annotations

from pgtend.app.operator import Operator
from pgtend.app.settings import Settings, StartupError

__all__ = ["Operator", "Settings", "StartupError"]
