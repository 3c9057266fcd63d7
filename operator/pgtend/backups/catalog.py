"""What the bucket holds, read from its listing and its manifests alone, so that a new cluster knows every backup that
an earlier one took. Pure: somebody else lists and fetches.

    <prefix>/<systemIdentifier>/dump/<YYYYmmdd-HHMMSS>-<4 hex>/
        <database>.dump.zst.age  globals.sql.zst.age      data, meaningless without
        manifest.json                                     the commit: written last, only if absent
        verified-read.json                                evidence of another pod
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from pgtend.backups.manifest import Evidence, Manifest, Tombstone, parse_manifest

MANIFEST = "manifest.json"
GLOBALS = "globals.sql.zst.age"
DATA_SUFFIX = ".zst.age"
_RUN = re.compile(r"(?P<id>[0-9]{8}-[0-9]{6}-[0-9a-f]{4})")
_EVIDENCE = re.compile(r"verified-(?P<level>[a-z]+)\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where one run writes. `identifier` is `<YYYYmmdd-HHMMSS>-<4 hex>` in UTC."""

    prefix: str
    system_identifier: str
    identifier: str

    @property
    def folder(self) -> str:
        return f"{self.prefix}/{self.system_identifier}/dump/{self.identifier}/"

    @property
    def manifest(self) -> str:
        return self.folder + MANIFEST

    @property
    def globals(self) -> str:
        return self.folder + GLOBALS

    def dump(self, database: str) -> str:
        return f"{self.folder}{encode_database(database)}.dump{DATA_SUFFIX}"

    @property
    def started_at(self) -> datetime:
        return datetime.strptime(self.identifier[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)


def run_identifier(started_at: datetime, nonce: int) -> str:
    return f"{started_at.astimezone(UTC):%Y%m%d-%H%M%S}-{nonce & 0xFFFF:04x}"


def encode_database(name: str) -> str:
    """A database's name as a part of a key: percent-encoded UTF-8, which any URL decoder takes back."""
    return quote(name, safe="")


def location_of(*, prefix: str, key: str) -> Location | None:
    """The run that a key below `prefix` belongs to, or None where the key has not our shape: it is somebody else's."""
    match = re.fullmatch(
        rf"{re.escape(prefix)}/(?P<system>[0-9]{{1,20}})/dump/{_RUN.pattern}/[^/]+", key, flags=re.DOTALL
    )
    if match is None:
        return None
    found = Location(prefix=prefix, system_identifier=match["system"], identifier=match["id"])
    try:
        found.started_at  # noqa: B018 - a date that does not exist is not ours
    except ValueError:
        return None
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One object of a listing."""

    key: str
    size: int
    etag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All keys of one folder. Without a manifest it is a run that goes on, or one that died."""

    location: Location
    objects: tuple[Listed, ...]

    @property
    def manifest(self) -> Listed | None:
        return next((o for o in self.objects if o.key == self.location.manifest), None)

    @property
    def evidence(self) -> tuple[Listed, ...]:
        return tuple(o for o in self.objects if _EVIDENCE.fullmatch(o.key.rsplit("/", 1)[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A listing sorted into runs; `foreign` are keys that are not ours and are never touched."""

    runs: tuple[Run, ...]
    foreign: tuple[Listed, ...]


def sort_listing(*, prefix: str, listed: Iterable[Listed]) -> Listing:
    """Group the objects below `prefix` by run, oldest first."""
    runs: dict[Location, list[Listed]] = {}
    foreign: list[Listed] = []
    for item in listed:
        where = location_of(prefix=prefix, key=item.key)
        if where is not None:
            runs.setdefault(where, []).append(item)
        elif not item.key.startswith(f"{prefix}/.pgtend/"):
            foreign.append(item)
    ordered = sorted(runs.items(), key=lambda pair: (pair[0].identifier, pair[0].system_identifier))
    return Listing(runs=tuple(Run(location=w, objects=tuple(o)) for w, o in ordered), foreign=tuple(foreign))


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """One committed backup with what was proved of it. `missing` are keys of its manifest that the listing lacks or
    shows with another size."""

    run: Run
    manifest: Manifest
    evidence: tuple[Evidence, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def verified(self) -> bool:
        return bool(self.evidence) and not self.missing

    def locked(self, now: datetime) -> bool:
        """Whether the store would keep its data from being deleted."""
        until = self.manifest.locked_until
        return until is not None and until > now


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Backups of one policy, or of all, oldest first, and all that is in the way.

    `dying` are runs under a tombstone, `uncommitted` runs without a manifest, `unreadable` those whose manifest is no
    manifest, `others` runs of other policies or installations, `foreign` keys that nobody of ours wrote. `adoptable`
    are the backups among the others that another installation took for a policy of the same name, `adopted` those that
    are counted as ours.
    """

    backups: tuple[Backup, ...] = ()
    dying: tuple[tuple[Run, Tombstone], ...] = ()
    uncommitted: tuple[Run, ...] = ()
    unreadable: tuple[Run, ...] = ()
    others: tuple[Run, ...] = ()
    foreign: tuple[Listed, ...] = ()
    adoptable: tuple[Backup, ...] = ()
    adopted: tuple[Backup, ...] = ()

    @property
    def newest(self) -> Backup | None:
        return self.backups[-1] if self.backups else None

    @property
    def newest_verified(self) -> Backup | None:
        return next((b for b in reversed(self.backups) if b.verified), None)

    def abandoned(self, *, now: datetime, older_than: timedelta) -> tuple[Run, ...]:
        """Runs that never got a manifest and began long ago: their pod died between upload and commit."""
        return tuple(r for r in self.uncommitted if r.location.started_at + older_than < now)


def read_catalog(
    *,
    listing: Listing,
    contents: Mapping[str, bytes],
    installation: str | None,
    policy: tuple[str, str] | None,
    adopt: bool = False,
) -> Catalog:
    """`contents` holds the bytes of every manifest and evidence object by key; one that is absent counts as
    unreadable, never as good. `policy` is (namespace, name); None stands for whichever there are. With `adopt` those
    of other installations are ours as well."""
    found: dict[str, list[Any]] = {
        k: [] for k in ("backups", "dying", "uncommitted", "unreadable", "others", "adoptable", "adopted")
    }
    for run in listing.runs:
        if run.manifest is None:
            found["uncommitted"].append(run)
            continue
        raw = contents.get(run.manifest.key)
        record = parse_manifest(raw) if raw is not None else None
        if raw is None or record is None:
            found["unreadable"].append(run)
        elif _another(record, None if adopt else installation, policy):
            found["others"].append(run)
            if isinstance(record, Manifest) and not _another(record, None, policy):
                found["adoptable"].append(_backup(run, record, raw, contents))
        elif isinstance(record, Tombstone):
            found["dying"].append((run, record))
        else:
            found["backups"].append(_backup(run, record, raw, contents))
    found["adopted"] = [b for b in found["backups"] if adopt and b.manifest.installation_id != installation]
    found["backups"].sort(key=lambda b: (b.manifest.finished_at, b.run.location.identifier))
    return Catalog(foreign=listing.foreign, **{k: tuple(v) for k, v in found.items()})


def _another(record: Manifest | Tombstone, installation: str | None, policy: tuple[str, str] | None) -> bool:
    whose = (record.policy.namespace, record.policy.name)
    return (installation is not None and record.installation_id != installation) or policy not in (None, whose)


def _backup(run: Run, manifest: Manifest, raw: bytes, contents: Mapping[str, bytes]) -> Backup:
    sizes = {o.key: o.size for o in run.objects}
    digest = hashlib.sha256(raw).hexdigest()
    evidence = []
    for item in run.evidence:
        try:
            proof = Evidence.model_validate_json(contents.get(item.key, b""))
        except ValidationError:
            continue
        if proof.manifest_sha256 == digest:
            evidence.append(proof)
    missing = tuple(o.key for o in manifest.objects if sizes.get(o.key) != o.size)
    return Backup(run=run, manifest=manifest, evidence=tuple(evidence), missing=missing)
