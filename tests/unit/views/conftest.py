"""A small output, made from two clips by everything the main job does but Ray."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from featray.config import Config, parse_config
from featray.extract.chunks import extract_chunks
from featray.extract.plan import VideoTask, open_source, plan_video
from featray.faces.detectors import detector_sha256, open_detector
from featray.graph.rows import chunk_row
from featray.graph.stages import Infer, InferSettings, LandParts
from featray.identity import release_name, result_settings, work_key
from featray.model.source import resolve_checkpoint
from featray.model.synth import SYNTHETIC_VARIANTS, write_synthetic
from featray.run.shards import cut_shards
from featray.sources.listing import list_videos
from featray.tables.commits import write_manifest
from featray.tables.landing import write_plan
from featray.tables.layout import Output, Partition, open_output
from featray.tables.provenance import WeightsFacts, run_row
from featray.tables.publish import PublishSettings, publish_shard
from featray.tables.query import connect, run_sql
from featray.tables.runs import begin_run, end_run
from tests.fixtures.corpus import run_ffmpeg


def run_without_ray(config: Config, *, trained: bool) -> Output:
    """Plan, decode, detect, infer, land and publish in this process."""
    model, options = config.model, config.input.storage_options
    checkpoint = resolve_checkpoint(model.checkpoint, revision=None, sha256=None, accept_license=None, cache_dir=Path())
    settings = result_settings(
        config,
        weights_sha256=checkpoint.sha256,
        detector_sha256=detector_sha256(config.detect),
        precision="fp32",
    )
    release, run_id = release_name(checkpoint.name, settings), "run-1"
    facts = WeightsFacts(checkpoint.name, model.checkpoint, checkpoint.sha256, None, "none", trained)
    row = run_row(
        config,
        run_id=run_id,
        release=release,
        weights=facts,
        engine="torch",
        precision="fp32",
        settings=settings,
    )
    output = open_output(config.output.uri, config.output.storage_options, create=True)
    partition = Partition(output, config.dataset, release)
    begin_run(partition, row)
    infer = Infer(
        InferSettings(
            model.checkpoint, None, checkpoint.sha256, None, "torch", "fp32", model.recipe, 8, 1, False, Path()
        )
    )
    detector = open_detector(config.detect)
    todo = (VideoTask(video, work_key(video.content_id, settings), shard="") for video in list_videos(config.input))
    for manifest, tasks in cut_shards(todo, run_id):
        write_manifest(partition, manifest)
        for task in tasks:
            plan = plan_video(task.video, config.decode, options)
            write_plan(partition.landing(task.video.video_id, task.work_key), plan)
            for unit in task.units(plan, {}):
                for chunk in extract_chunks(unit, partial(open_source, task.video, options), config.decode, detector):
                    for done in infer(chunk_row(unit.to_json(), chunk)):
                        LandParts(partition, run_id, 1)(done)
        publish_shard(partition, manifest, PublishSettings(run_id, tuple(config.output.tables), ()))
    end_run(partition, {**row, "status": "done", "finished_at": datetime.now(UTC)})
    return partition.output


@dataclass(frozen=True)
class Made:
    """The output and the folder of its clips."""

    output: Output
    clips: Path

    def rows(self, sql: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = run_sql(connect(self.output), sql).read_all().to_pylist()
        return found


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, face_clip: Path) -> Made:
    """`turned.mp4`: on its side, upright by its display matrix, at an uneven rate; `late.mp4`: nobody, then a face.

    Every second frame is sampled.
    """
    folder = tmp_path_factory.mktemp("views")
    clips = folder / "clips"
    clips.mkdir()
    x264 = "-an -c:v libx264 -preset veryfast -bf 2 -g 8 -pix_fmt yuv420p".split()
    uneven = "scale=320:180,transpose=1,setpts='(N+N*N/30)/24/TB'"
    on_side = str(folder / "side.mp4")
    run_ffmpeg("-i", str(face_clip), "-vf", uneven, "-frames:v", "24", "-fps_mode", "passthrough", *x264, on_side)
    run_ffmpeg("-display_rotation", "90", "-i", on_side, "-c", "copy", str(clips / "turned.mp4"))
    nobody = "[0:v]scale=320:180,fps=24,setsar=1[a];[1:v]scale=320:180,fps=24,setsar=1[b];[a][b]concat=n=2:v=1"
    inputs = ["-t", "0.5", "-i", str(face_clip.parent / "no_face.mp4"), "-t", "0.5", "-i", str(face_clip)]
    run_ffmpeg(*inputs, "-filter_complex", nobody, *x264, str(clips / "late.mp4"))
    checkpoint = folder / "atto.safetensors"
    write_synthetic(checkpoint, config=SYNTHETIC_VARIANTS["atto"])
    config = parse_config(
        {
            "dataset": "test",
            "input": {"uris": [f"{clips}/*.mp4"]},
            "output": {"uri": str(folder / "out")},
            "decode": {"sample": {"every": 2}},
            "model": {"checkpoint": str(checkpoint), "engine": "torch", "precision": "fp32", "batch_size": 8},
        }
    )
    return Made(run_without_ray(config, trained=False), clips)
