"""Weights. Weights on the Hugging Face hub: pulled once, stored with a record of commit and digest.

What must stay true: once pulled, a file is used without the network, and a changed file is
an error; an interrupted pull leaves nothing behind; the revision is recorded as the commit
that it resolved to. Telemetry of the hub's client stays off.
"""

from __future__ import annotations

import datetime
import logging
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar
from urllib.parse import quote, unquote

from featray.errors import ConfigError, ModelError, WeightsMissing, counted, one_line
from featray.records import dump, load
from featray.weights.cache import locked, make_entry, sha256_of_file

_log = logging.getLogger(__name__)

HUB_PREFIX: Final = "hf://"
DEFAULT_LICENSE: Final = "research-noncommercial"
"""Licence of a checkpoint without one in its metadata: the terms of py-feat's weights."""

_DEFAULT_REVISION: Final = "main"
_FOLDER: Final = "checkpoints"
_RESTRICTED_OWNER: Final = "py-feat"
_MAX_FILE_BYTES: Final = 8 * 1024**3
_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubFile:
    """One file of a hub repository at a branch, tag or commit.

    `short_name` is its name in `featray models pull`, as an alternative to the spec. `setting` is the
    config key that takes a local file instead.
    """

    repo: str
    file: str
    revision: str
    short_name: str | None = None
    setting: str = "model.checkpoint"

    @property
    def spec(self) -> str:
        """Return the file as `hf://owner/repo/path`."""
        return f"{HUB_PREFIX}{self.repo}/{self.file}"

    @property
    def pull_command(self) -> str:
        """Return the command that pulls it."""
        revision = "" if self.revision == _DEFAULT_REVISION else f" --revision {self.revision}"
        license = f" --accept-license {DEFAULT_LICENSE}" if self.restricted else ""
        return f"featray models pull {self.short_name or self.spec}{revision}{license}"

    @property
    def restricted(self) -> bool:
        """Return whether its licence must be accepted: py-feat's are for research only, except its detector's."""
        of_pyfeat = self.repo.split("/")[0].lower() == _RESTRICTED_OWNER
        return of_pyfeat and self.setting in ("model.checkpoint", "identify.weights")


class Weights(Protocol):
    """Facts about a file of weights."""

    @property
    def sha256(self) -> str:
        """Return the hex digest of the file."""
        ...

    @property
    def license(self) -> str:
        """Return the licence of the weights."""
        ...


_Read = TypeVar("_Read", bound=Weights)


@dataclass(frozen=True)
class PullRecord:
    """The record of a pulled file, stored next to it as JSON. `revision` is a commit."""

    repo: str
    file: str
    requested_revision: str
    revision: str
    sha256: str
    etag: str
    pulled_at: str
    license: str = DEFAULT_LICENSE

    @property
    def spec(self) -> str:
        """Return the file as `hf://owner/repo/path`."""
        return f"{HUB_PREFIX}{self.repo}/{self.file}"


def parse_hub_spec(spec: str, revision: str | None) -> HubFile:
    """Parse `hf://owner/repo/path/to/file.safetensors`.

    Raises:
        ConfigError: it has another form, or the file is not `.safetensors`.
    """
    parts = spec.removeprefix(HUB_PREFIX).split("/")
    if len(parts) < 3 or not all(_PART.fullmatch(part) for part in parts):
        raise ConfigError(f"model.checkpoint: {spec!r} is not hf://owner/repository/file.safetensors")
    if not parts[-1].endswith(".safetensors"):
        raise ConfigError(f"model.checkpoint: {spec!r} is not a .safetensors file, the only supported format")
    revision = _DEFAULT_REVISION if revision is None else revision
    if not revision or len(revision) > 200 or not revision.isprintable():
        raise ConfigError(f"model.revision: {revision[:50]!r} is not a branch, tag or commit")
    return HubFile("/".join(parts[:2]), "/".join(parts[2:]), revision)


def fetch(
    hub_file: HubFile, cache_dir: Path, read: Callable[[Path], _Read], *, sha256: str | None
) -> tuple[_Read, str]:
    """Read the local copy of a hub file; pull it first if it is not in `cache_dir`.

    A branch or tag is resolved to a commit by the first pull and does not change afterwards.

    Args:
        hub_file: the file.
        cache_dir: folder of the copies.
        read: opens a file and hashes it; raises ModelError if it cannot be the requested one.
        sha256: hex digest that the file must have, or None.

    Returns:
        The result of `read`, and the hub's commit.

    Raises:
        WeightsMissing: it was never pulled and the hub cannot be reached.
        ModelError: the hub has no such file, the download was interrupted, or the file does not
            match `sha256`, the hub's own hash or the record.
    """
    entry = _ensure(hub_file, cache_dir, sha256, read)
    found, revision = _open(hub_file, entry, read)
    _check_sha256(hub_file, found.sha256, sha256)
    return found, revision


def open_pulled(hub_file: HubFile, cache_dir: Path, read: Callable[[Path], _Read]) -> tuple[_Read, str]:
    """Read the local copy of a hub file; never uses the network.

    Raises:
        WeightsMissing: it was never pulled into `cache_dir`.
        ModelError: the copy is damaged.
    """
    entry = _entry(hub_file, cache_dir)
    if not entry.exists():
        raise WeightsMissing(
            f"{hub_file.short_name or hub_file.spec}: not pulled at {hub_file.revision!r} yet; "
            f"run `{hub_file.pull_command}`"
        )
    return _open(hub_file, entry, read)


def list_pulled(cache_dir: Path) -> list[tuple[PullRecord, Path]]:
    """Return the record and path of every pulled file in `cache_dir`, sorted by path, without reading the files.

    Raises:
        ModelError: a record is damaged.
    """
    entries = sorted(path for path in (cache_dir / _FOLDER).glob("*@*/*") if path.is_dir() and path.name[0] != ".")
    records = [_read_record(entry, entry / Path(unquote(entry.name)).name) for entry in entries]
    return [(record, entry / Path(record.file).name) for record, entry in zip(records, entries, strict=True)]


def _entry(hub_file: HubFile, cache_dir: Path) -> Path:
    revision = quote(hub_file.revision, safe="")
    folder = cache_dir / _FOLDER / f"{hub_file.repo.replace('/', '--')}@{revision}"
    return folder / quote(hub_file.file, safe="")


def _read_record(entry: Path, path: Path) -> PullRecord:
    try:
        return load(PullRecord, path.with_suffix(".json").read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{entry}: is damaged ({one_line(error, 200)}); delete it and pull again") from error


def _ensure(hub_file: HubFile, cache_dir: Path, sha256: str | None, read: Callable[[Path], Weights]) -> Path:
    entry = _entry(hub_file, cache_dir)
    try:
        if not entry.exists():
            with locked(entry.parent / f"{entry.name}.lock"):
                if not entry.exists():
                    make_entry(entry, lambda made: _pull(hub_file, made, sha256, read))
    except OSError as error:
        raise ModelError(
            f"{entry}: cannot be written ({error.strerror or error}); set FEATRAY_CACHE to another folder"
        ) from error
    return entry


def _open(hub_file: HubFile, entry: Path, read: Callable[[Path], _Read]) -> tuple[_Read, str]:
    path = entry / Path(hub_file.file).name
    found = read(path)
    return found, _hold_to_record(entry, path, found.sha256)


def _hold_to_record(entry: Path, path: Path, sha256: str) -> str:
    """Return the commit that a file was pulled at; ModelError if it is not the pulled file."""
    record = _read_record(entry, path)
    if sha256 != record.sha256:
        raise ModelError(f"{path}: is not the file that was pulled; delete {entry} and pull again")
    return record.revision


def _pull(hub_file: HubFile, made: Path, sha256: str | None, read: Callable[[Path], Weights]) -> None:
    """Download into the empty folder `made`, check the file, and write the record next to it."""
    path = made / Path(hub_file.file).name
    commit, etag = _download(hub_file, path)
    found = sha256_of_file(path)
    if _SHA256.fullmatch(etag) and found != etag:
        raise ModelError(f"{hub_file.spec}: the download is corrupt (sha256 {found}, not {etag}); pull it again")
    _check_sha256(hub_file, found, sha256)
    try:
        license_name = read(path).license
    except ModelError as error:
        raise ModelError(str(error).replace(str(path), hub_file.spec), **error.details) from None
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record = PullRecord(hub_file.repo, hub_file.file, hub_file.revision, commit, found, etag, now, license_name)
    path.with_suffix(".json").write_bytes(dump(record))


def _download(hub_file: HubFile, path: Path) -> tuple[str, str]:
    """Download a hub file to `path`; return the commit of its revision, and the hub's etag."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    constants.HF_HUB_DISABLE_TELEMETRY = True
    # The base error of the HTTP client, which differs between versions of the hub's library, and OSError.
    broke_off: tuple[type[BaseException], ...] = (*errors.HfHubHTTPError.__bases__, ValueError)
    download = path.parent / "download"
    try:
        url = huggingface_hub.hf_hub_url(hub_file.repo, hub_file.file, revision=hub_file.revision)
        metadata = huggingface_hub.get_hf_file_metadata(url)
        commit, etag, size_bytes = metadata.commit_hash or "", metadata.etag or "", metadata.size or 0
        if not _COMMIT.fullmatch(commit) or not 0 < size_bytes <= _MAX_FILE_BYTES:
            raise ModelError(
                f"{hub_file.spec}: the hub's answer is invalid ({commit!r}, {counted(size_bytes, 'byte')})"
            )
        _log.info("pulling %s at %s (%.0f MB)", hub_file.spec, commit, size_bytes / 1e6)
        pulled = huggingface_hub.hf_hub_download(
            hub_file.repo,
            hub_file.file,
            revision=commit,
            local_dir=download,
            cache_dir=download / "none",
        )
    except (
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
        errors.RemoteEntryNotFoundError,
    ) as error:
        raise ModelError(
            f"{hub_file.spec}: the hub has no such file at {hub_file.revision!r}, or you have no access to it"
        ) from error
    except broke_off as error:
        raise WeightsMissing(
            f"{hub_file.spec}: cannot be pulled ({one_line(error, 200)}); run `{hub_file.pull_command}` "
            f"where the hub can be reached, or set {hub_file.setting} to a local file"
        ) from error
    os.replace(pulled, path)
    shutil.rmtree(download)
    return commit, etag


def _check_sha256(hub_file: HubFile, found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise ModelError(f"{hub_file.spec}: its sha256 is {found}, not {expected} as requested")
