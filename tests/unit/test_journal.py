"""A status proves itself by its mark, and by nothing else."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pgtend.core.journal import Claimed, mark_of, of_another, read_journal

MARK = mark_of(installation="here", uid="u-1")


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"journal": None},
        {"journal": "here/u-1"},
        {"journal": {}, "finishedAt": "2026-01-01T00:00:00Z"},
        {"journal": {"mark": "here/u-2"}, "finishedAt": "2026-01-01T00:00:00Z"},
        {"journal": {"mark": "there/u-1"}},
    ],
)
def test_what_does_not_carry_our_mark_says_nothing(status: dict[str, object]) -> None:
    assert read_journal(status, mark=MARK) is None


def test_what_was_claimed_is_read_back() -> None:
    claim = {"object": "pid 1", "facts": {"pid": "1"}}
    body = {"mark": MARK, "claimedAt": "2026-01-01T00:00:00Z", "claimedBy": "p", "unfinished": [claim]}
    journal = read_journal({"journal": body}, mark=MARK)
    assert journal is not None
    assert journal.claimed_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert (journal.claimed_by, journal.finished, journal.deadline) == ("p", False, None)
    assert journal.unfinished == (Claimed(object="pid 1", facts={"pid": "1"}),)
    ended = read_journal({"journal": body, "finishedAt": "2026-01-01T00:01:00Z"}, mark=MARK)
    assert ended is not None and ended.finished


def test_only_another_installation_on_this_very_object_is_another() -> None:
    def asked(mark: str) -> str | None:
        return of_another({"journal": {"mark": mark}}, installation="here", uid="u-1")

    assert asked("there/u-1") == "there"
    assert asked(MARK) is None
    assert asked("there/u-2") is None, "a status out of a backup has another object's uid"
    assert of_another({}, installation="here", uid="u-1") is None
