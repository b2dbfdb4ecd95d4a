"""Upkeep. Finish the work of a killed driver: clean up published shards and publish those that have landed.

This needs neither Ray nor the sources, because publishing reads only landed files. Settings come
from the row of the run that opened the shard, in its marker or in `runs`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from featray.config import path_field_names
from featray.config_derive import DeriveConfig
from featray.config_identify import IdentifyConfig
from featray.errors import ConfigError, OutputError
from featray.findings.derive import Derivation
from featray.schema import DERIVED_TABLES, arrow_schema
from featray.store.storage import list_folders
from featray.tables.commits import Commit, ShardManifest, close_shard, read_commit, read_commits, read_manifests
from featray.tables.landing import landed_units, read_plan
from featray.tables.layout import Partition
from featray.tables.lease import HeldPartition, hold
from featray.tables.merge import Embedded
from featray.tables.provenance import footer, read_config
from featray.tables.publish import PublishSettings, clean_up_shard, publish_shard
from featray.tables.replace import COMPACT_PREFIX, PERSONS_PREFIX, finish_changes
from featray.tables.rewrite import complete, open_parquet
from featray.tables.runs import close_killed_runs, running_rows
from featray.upkeep.orphans import open_stems, sweep_records, uncommitted_files


@dataclass(frozen=True)
class Finished:
    """The result of finishing a partition.

    Attributes:
        changes: erasures, compactions and replacements that were completed.
        cleaned: already published shards that were cleaned up.
        published: commits of the shards that were published.
        landed: videos that have landed, at least in part, and are in no open shard: of `--part`, or of a run that ended
            early. Only a run knows what to publish with them.
        waiting: shards that cannot be published yet, with the number of landed units and of all units
            (None if a video has not been planned).
        leftovers: uncommitted files of compactions, derivations and killed writers that were deleted.
        runs: killed runs that were marked as such in `runs`.
    """

    changes: int = 0
    cleaned: int = 0
    published: list[Commit] = field(default_factory=list)
    landed: int = 0
    waiting: list[tuple[str, int, int | None]] = field(default_factory=list)
    leftovers: int = 0
    runs: int = 0


def finish_committed(partition: HeldPartition) -> tuple[int, int]:
    """Apply pending commits; return the number of changes finished and of shards cleaned up.

    Half-written records of killed processes are deleted.
    """
    sweep_records(partition)
    changes, cleaned = finish_changes(partition), 0
    for manifest in read_manifests(partition):
        commit = read_commit(partition, manifest.shard)
        if commit is not None and commit.cancelled:
            partition.check()
            close_shard(partition, manifest.shard)  # the next run uses its landed units
        elif commit is not None:
            clean_up_shard(partition, manifest)
            cleaned += 1
    return changes, cleaned


def finish_partition(partition: Partition) -> Finished:
    """Publish every shard whose units have all landed; finish interrupted changes.

    Raises:
        OutputError: the run that opened a shard is unknown.
        LeaseError: a run is active.
    """
    with hold(partition, f"publish-{secrets.token_hex(4)}") as lease:
        return _finish(lease.partition)


def _finish(partition: HeldPartition) -> Finished:
    changes, cleaned = finish_committed(partition)
    published, waiting = [], []
    landed_videos = set(list_folders(partition.landing()))
    for manifest in read_manifests(partition):
        landed_videos -= {partition.landing_name(video.video_id, video.work_key) for video in manifest.videos}
        landed, units = _progress(partition, manifest)
        if landed == units:
            published.append(publish_shard(partition, manifest, _settings(partition, manifest)))
        else:
            waiting.append((manifest.shard, landed, units))
    leftovers = remove_leftovers(partition)
    runs = 0 if waiting else close_killed_runs(partition)
    return Finished(changes, cleaned, published, len(landed_videos), waiting, leftovers, runs)


def remove_leftovers(partition: HeldPartition) -> int:
    """Delete what compactions, derivations and killed writers left before their commit; return the number of files.

    Call this when nothing is being written: temporary files of tables are then from killed processes.
    """
    committed = {file.path for commit in read_commits(partition) for file in commit.files}
    open_shards = tuple(open_stems(partition))
    removed = 0
    for path in uncommitted_files(partition.output, partition.table_folders(), committed):
        name = path.rsplit("/", 1)[-1].lstrip(".")
        # Rows that were derived again are in files named after other commits, so match by table.
        was_derived = path.partition("/")[0] in DERIVED_TABLES and not name.startswith(open_shards)
        was_being_written = path.endswith(".tmp") and path.rpartition("/")[2].startswith(".part-")
        if was_derived or was_being_written or name.startswith((f"part-{COMPACT_PREFIX}", f"part-{PERSONS_PREFIX}")):
            partition.delete(path)
            removed += 1
    return removed


def _progress(partition: Partition, manifest: ShardManifest) -> tuple[int, int | None]:
    """Return how many units of a shard have landed, and how many it has."""
    landed, units, planned = 0, 0, True
    for video in manifest.videos:
        folder = partition.landing(video.video_id, video.work_key)
        plan = read_plan(folder)
        planned = planned and plan is not None
        if plan is not None:
            landed += len(landed_units(folder).keys() & {unit.index for unit in plan.units})
            units += len(plan.units)
    return landed, units if planned else None


def _settings(partition: HeldPartition, manifest: ShardManifest) -> PublishSettings:
    for row in (*running_rows(partition), *_published_runs(partition)):
        if row["run_id"] == manifest.run_id:
            break
    else:
        raise OutputError(f"shard {manifest.shard}: its run {manifest.run_id} is not in `runs`; run the job again")
    try:
        config = read_config(row["config"])
        if not config.tables:
            raise ValueError("names no table")
        derive, embedded = _derivation(config.data), _embedded(config.data)
    except ValueError:
        run = f"shard {manifest.shard}: the config of its run {manifest.run_id}"
        raise OutputError(f"{run} in `runs` cannot be read; run the job again") from None
    return PublishSettings(
        run_id=manifest.run_id,
        tables=config.tables,
        path_fields=tuple(n for n in path_field_names(config.path_fields or "") if n != "name"),
        footer=footer(row),
        derive=derive,
        embedded=embedded,
    )


def _derivation(config: dict[str, Any]) -> Derivation | None:
    """Return the derivation in a run's config; None if it derives no rows, as in configs of older versions.

    Raises:
        ValueError: the config is invalid.
    """
    if "derive" not in config:
        return None
    settings = DeriveConfig.model_validate(config["derive"])
    try:
        derivation = Derivation(settings)
        # Derivations that cross shards need all shards; the next run or `featray derive` makes them.
        return derivation if settings.enabled and not derivation.crosses_shards else None
    except ConfigError as error:
        raise ValueError("has invalid expressions") from error


def _embedded(config: dict[str, Any]) -> Embedded | None:
    """Return the embeddings that a run's config asks for; configs of older versions ask for none.

    Raises:
        ValueError: the config is invalid.
    """
    return Embedded.of(IdentifyConfig.model_validate(config.get("identify", {})))


def _published_runs(partition: Partition) -> Iterator[dict[str, Any]]:
    for commit in read_commits(partition):
        for file in commit.files:
            if file.table == "runs":
                place = partition.output.root.child(file.path)
                with open_parquet(place) as opened:
                    yield from complete(opened.read(), arrow_schema("runs")).to_pylist()
