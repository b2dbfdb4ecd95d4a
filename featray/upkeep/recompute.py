"""Upkeep. Recompute published rows from their sources and compare every number.

This uses the same code as a run, without Ray: find the source, plan, decode and detect the unit
that holds the row, and run the recorded engine on its chip. Settings come from the run's row. Rows
that cannot be recomputed (the source is gone or has changed, or the weights are not available) are
reported and counted, but they are not failures, because nothing is known about them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featray.config import WHERE_THEY_ACT, Config, DecodeConfig, parse_config
from featray.errors import ErrorCode, FeatrayError, ModelError, NotFound, OutputError, StorageError, counted
from featray.extract.child import ChildSettings
from featray.extract.chunks import Chunk
from featray.extract.isolation import IsolatedDecoder
from featray.extract.plan import Failure, UnitTask, VideoPlan, VideoTask
from featray.faces.detectors import detector_sha256, prepare_detector
from featray.faces.embedder import embedder_of
from featray.graph.rows import chunk_row, read_stream
from featray.graph.stages import Infer, InferSettings
from featray.identity import result_settings, settings_hash
from featray.model.conventions import parse_conventions
from featray.records import read_extra
from featray.sources.listing import Video, find_video
from featray.sources.places import SourceOptions
from featray.tables.database import read_rows
from featray.tables.layout import Output
from featray.tables.provenance import read_config
from featray.tables.published import Published, read_steadily
from featray.tables.query import connect, run_sql
from featray.upkeep.bounds import GROUPS, SHARE, SIDE, repeat_bounds

_NOT_ABOUT_THE_ROW = {ErrorCode.FETCH_FAILED, ErrorCode.ACCESS_DENIED, ErrorCode.TIMEOUT, ErrorCode.OUT_OF_MEMORY}

Key = tuple[int, int]
"""Frame index and face index."""


@dataclass(frozen=True)
class Worst:
    """The largest difference of a group of columns."""

    difference: float = 0.0
    bound: float = 0.0
    row: str = ""


@dataclass
class Recomputed:
    """The result of recomputing rows.

    Attributes:
        asked: rows that were sampled.
        checked: rows that were recomputed.
        worst: largest difference by group of columns.
        differing: rows with a number beyond its bound, or that recomputation did not find: one line each.
        unverifiable: reasons why rows could not be recomputed, one line each.
    """

    asked: int = 0
    checked: int = 0
    worst: dict[str, Worst] = field(default_factory=dict)
    differing: list[str] = field(default_factory=list)
    unverifiable: list[str] = field(default_factory=list)

    def cannot(self, rows: list[dict[str, Any]], why: str) -> None:
        """Record rows that cannot be recomputed."""
        self.unverifiable.append(f"{counted(len(rows), 'row')} of video {rows[0]['video_id']}: {why}")


def recompute(
    output: Output, count: int, *, seed: int, release: str | None, source_options: SourceOptions | None = None
) -> Recomputed:
    """Recompute `count` random published faces.

    Args:
        output: output with the tables.
        count: number of faces; all of them if there are fewer.
        seed: the same seed selects the same rows.
        release: sample from this release only; None for all.
        source_options: storage options for the sources; the tables do not contain secrets.
    """
    rows = _draw(output, count, seed, release)
    report = Recomputed(asked=len(rows))
    for (_, run_id), of_run in _grouped(rows, "release", "run_id"):
        try:
            repeat = _Repeat(of_run[0], source_options or SourceOptions())
        except FeatrayError as error:
            for _, of_video in _grouped(of_run, "dataset", "video_id"):
                report.cannot(of_video, f"run {run_id}: {error}")
            continue
        with repeat:
            for _, of_video in _grouped(of_run, "dataset", "video_id"):
                repeat.check(of_video, report)
    return report


def _draw(output: Output, count: int, seed: int, release: str | None) -> list[dict[str, Any]]:
    """Return random rows with all their columns from all tables."""
    tables = "faces f"
    for table in ("blendshapes", "mesh"):
        tables += (
            f" LEFT JOIN (SELECT * EXCLUDE (pts_us, run_id, track_id) FROM {table}) {table} "
            "USING (dataset, release, video_id, frame_index, face_index)"
        )
    order = f"md5('{int(seed)} ' || dataset || release || video_id || ' ' || frame_index || ' ' || face_index)"
    sql = f"""
        WITH drawn AS (
            SELECT dataset, release, video_id, frame_index, face_index FROM faces ORDER BY {order} LIMIT {int(count)}
        )
        SELECT f.*, blendshapes.* EXCLUDE (dataset, release, video_id, frame_index, face_index), mesh.mesh_xyz,
               v.uri, v.member, v.content_id, v.extra, r.config, r.config_hash, r.engine, r.precision,
               r.weights_sha256, r.conventions
        FROM {tables}
        SEMI JOIN drawn USING (dataset, release, video_id, frame_index, face_index)
        LEFT JOIN videos v USING (dataset, release, video_id)
        LEFT JOIN runs r ON r.run_id = f.run_id AND r.release = f.release
        ORDER BY f.release, f.run_id, f.dataset, f.video_id, f.frame_index, f.face_index
    """

    def drawn(published: list[Published]) -> list[dict[str, Any]]:
        return read_rows(run_sql(connect(output, published=published), sql))

    return read_steadily(output, drawn, release or "all")


def _grouped(rows: list[dict[str, Any]], *names: str) -> Iterator[tuple[tuple[Any, ...], list[dict[str, Any]]]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    yield from groups.items()


class _Repeat:
    """A run's settings, decoder and network, restored."""

    def __init__(self, row: dict[str, Any], source_options: SourceOptions) -> None:
        if row["config"] is None:
            raise StorageError("is not in the runs table")
        self._config, decode = _recorded_config(row, source_options)
        self._check_named = source_options.check_named
        self._check_named(self._config.detect.boxes or "")
        recorded = {name: row[name] for name in ("weights_sha256", "engine", "precision")}
        conventions = parse_conventions(row["conventions"])
        # Recompute on the CPU.
        self._infer = Infer(InferSettings.of(self._config.model, **recorded, gpu=False, conventions=conventions))
        self._bounds = repeat_bounds(self._infer.checkpoint_config, row["precision"])
        child = ChildSettings.of(self._config).without_gpu()
        settings = result_settings(
            self._config,
            weights_sha256=row["weights_sha256"],
            detector_sha256=detector_sha256(child.detect, child.detector_files),
            precision=row["precision"],
            conventions=conventions.setting,
            embedder_sha256=embedder_of(self._config.identify),
        )
        if settings_hash(settings) != row["config_hash"]:
            raise ModelError(
                "its settings have different results in this version of featray; use the version in `runs`"
            )
        prepare_detector(child.detect, child.detector_files)
        self._decoder = IsolatedDecoder(replace(child, decode=decode).without_gpu())

    def __enter__(self) -> _Repeat:
        return self

    def __exit__(self, *_: object) -> None:
        self._decoder.close()

    def check(self, rows: list[dict[str, Any]], report: Recomputed) -> None:
        """Recompute the rows of one video and compare them."""
        video = self._source(rows, report)
        if video is None:
            return
        plan = self._decoder.plan(video)
        if plan.failure:
            self._failed(rows, [plan.failure], report)
            return
        units = list(VideoTask(video, "", "").units(plan, {}))
        of_units: dict[int, list[dict[str, Any]]] = {}
        for row in rows:
            of_units.setdefault(_unit_of(plan, row["frame_index"]), []).append(row)
        for index, of_unit in of_units.items():
            self._check_unit(units[index], of_unit, report)

    def _source(self, rows: list[dict[str, Any]], report: Recomputed) -> Video | None:
        """Return the source if it is unchanged since the rows were made; else report it and return None."""
        uri, member = rows[0]["uri"], rows[0]["member"]
        if uri is None:
            report.cannot(rows, "it has no row in videos, or no uri there; run `featray verify`")
            return None
        named = uri if member is None else f"{uri}#{member}"
        try:
            self._check_named(uri)
            video = find_video(uri, member, self._config.input, read_extra(rows[0]["extra"]))
        except FeatrayError as error:
            hint = "; the tables store no credentials or signatures: give --storage-option or --config"
            gone = isinstance(error, NotFound)
            report.cannot(rows, f"source: {error}{'' if gone else hint}")
            return None
        if video is None or video.problem:
            report.cannot(rows, f"source {named}: {video.problem[1] if video and video.problem else 'is gone'}")
        elif video.content_id != rows[0]["content_id"]:
            report.cannot(rows, f"source {named}: has changed since ({rows[0]['content_id']}, now {video.content_id})")
        else:
            return video
        return None

    def _check_unit(self, task: UnitTask, rows: list[dict[str, Any]], report: Recomputed) -> None:
        wanted: dict[Key, dict[str, Any]] = {(row["frame_index"], row["face_index"]): row for row in rows}
        failures: list[Failure] = []
        chunks = self._decoder.chunks(task)
        for chunk in chunks:
            for key, again in self._compute(chunk, set(wanted)):
                self._compare(wanted.pop(key), again, report)
            failures = chunk.outcome.failures
            if not wanted:
                break
        chunks.close()  # type: ignore[attr-defined]  # a generator: closing it stops the child process
        if wanted:
            self._failed(list(wanted.values()), failures, report)

    def _compute(self, chunk: Chunk, wanted: set[Key]) -> Iterator[tuple[Key, dict[str, Any]]]:
        """Yield the wanted faces of a chunk, with the network's numbers."""
        keys = list(zip(*(chunk.faces[name].to_pylist() for name in ("frame_index", "face_index")), strict=True))
        indices = [i for i, key in enumerate(keys) if key in wanted]
        if not indices:
            return
        fewer = chunk.of_faces(np.asarray(indices))
        (result,) = self._infer(chunk_row("", fewer))
        faces: pa.Table = read_stream(result["faces"][0].as_buffer())
        yield from zip((keys[i] for i in indices), faces.to_pylist(), strict=True)

    def _compare(self, row: dict[str, Any], again: dict[str, Any], report: Recomputed) -> None:
        report.checked += 1
        for name, group in GROUPS.items():
            bound = self._bounds[name]
            for column in group.columns:
                difference = _difference(row[column], again[column], group.unit, row["crop_side"])
                worst = report.worst.setdefault(name, Worst(bound=bound))
                if difference >= worst.difference:
                    report.worst[name] = Worst(difference, bound, _name(row))
                if not difference <= bound:
                    report.differing.append(
                        f"{_name(row)}: {column} is {_short(row[column])}, recomputed {_short(again[column])} "
                        f"(off by {difference:.2g}{' ' + group.unit if group.unit else ''}, bound {bound:g})"
                    )

    def _failed(self, rows: list[dict[str, Any]], failures: list[Failure], report: Recomputed) -> None:
        """Report the rows that recomputation did not find."""
        for stage, code, message in failures:
            if code in _NOT_ABOUT_THE_ROW:
                report.cannot(rows, f"{stage}: {message}")
                return
        for row in rows:
            report.checked += 1
            why = f" ({failures[0].message})" if failures else ""
            report.differing.append(f"{_name(row)}: recomputation found no such face{why}")


def _recorded_config(row: dict[str, Any], source_options: SourceOptions) -> tuple[Config, DecodeConfig]:
    """Return the run's config and decode settings; settings of `WHERE_THEY_ACT` that it lacks were not in effect."""
    try:
        found = read_config(row["config"])
    except ValueError:
        raise OutputError("its config in `runs` cannot be read") from None
    data = found.data
    data["input"]["uris"] = source_options.places_among(found.places)
    data["input"]["manifest_places"] = []
    data["input"]["storage_options"] = source_options.options
    data["output"] = {**data.get("output", {}), "storage_options": {}}
    config = parse_config(data, origin="its config")
    unknown = dict.fromkeys(set(WHERE_THEY_ACT).difference(data.get("decode") or {}), "off")
    return config, config.decode.model_copy(update=unknown)


def _unit_of(plan: VideoPlan, frame_index: int) -> int:
    """Return the position of the unit that holds a frame."""
    firsts = [unit.first_index for unit in plan.units]
    return int(np.searchsorted(firsts, frame_index, side="right")) - 1


def _difference(published: Any, again: Any, unit: str, side_px: float) -> float:
    """Return the largest difference of two numbers or lists; infinite if one is missing or lengths differ."""
    if published is None or again is None:
        return 0.0 if published is None and again is None else float("inf")
    a: NDArray[np.float64] = np.asarray(published, np.float64).ravel()
    b: NDArray[np.float64] = np.asarray(again, np.float64).ravel()
    if a.shape != b.shape or not np.isfinite(a).all():
        return float("inf")
    scale = {SIDE: side_px, SHARE: max(float(np.abs(b).max(initial=0)), 1.0)}.get(unit, 1.0)
    return float(np.abs(a - b).max(initial=0) / scale)


def _name(row: dict[str, Any]) -> str:
    return (
        f"{row['dataset']}/{row['release']} video {row['video_id']} frame {row['frame_index']} face {row['face_index']}"
    )


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, int | float) else "null" if value is None else "a list"
