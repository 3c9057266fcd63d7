"""Fixtures of the tests on real servers, all of them from tests/fixtures."""

import sys
from pathlib import Path

_ROOT = str(Path(__file__).parents[2])
if _ROOT not in sys.path:  # `tests.fixtures` is imported by name, however pytest was started
    sys.path.insert(0, _ROOT)

from tests.fixtures.plugin import *  # noqa: E402, F403
