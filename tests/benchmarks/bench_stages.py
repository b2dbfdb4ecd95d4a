"""Cost of each stage, alone, on one thread: CPU milliseconds a frame or a face.

The product's own code, stage after stage, in one process, without Ray. Prints a table and the
sizes of the data between stages, and writes both as JSON with --json; asserts nothing. With --job it measures only
what bench_job compares the whole job with; that runs a copy on every core at once.

    make bench
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

os.environ["OMP_NUM_THREADS"] = "1"

import pyarrow as pa

from featray.config import DecodeConfig, DetectConfig, InputConfig, cache_dir
from featray.errors import ConfigError
from featray.extract.chunks import Chunk, extract_chunks
from featray.extract.plan import UnitTask, VideoTask, open_source, plan_video
from featray.faces.detectors import open_detector
from featray.graph.rows import chips_of, chunk_row
from featray.graph.stages import Infer, InferSettings, LandParts
from featray.model.checkpoint import Checkpoint
from featray.model.engines import open_engine
from featray.model.source import resolve_checkpoint
from featray.records import dump
from featray.run.shards import cut_shards
from featray.sources.listing import list_videos
from featray.tables.commits import write_manifest
from featray.tables.landing import write_plan
from featray.tables.layout import Partition, open_output
from featray.tables.lease import UnheldPartition
from featray.tables.publish import PublishSettings, publish_shard
from featray.video.decode import DecodeAccount, decode_pyav
from featray.video.frame import Frame
from featray.video.repeats import same_picture
from tests.benchmarks import clips

_ROUNDS = 3

_INFERRED = 64
"""Number of faces for timing inference."""

_OF_JOB: Final = (("openvino", "fp32"), ("openvino", "bf16"))

_PUBLISHED_FACES_PER_S = {"RTX 3090": 202.0, "RTX PRO 6000": 355.0}
"""py-feat's own figures: whole pipeline, one face a frame, batch 16, bf16. The network alone is faster, so these are
lower bounds of a GPU's rate."""


def measure(clip: Path, every: int, compare: bool = True) -> dict[str, Any]:
    """Measure the stages up to the chips, as medians of some rounds; each times decoding alone, then all stages.

    Args:
        clip: clip of which all frames are used.
        every: `detect.every`.
        compare: whether to look for repeating frames.
    """
    settings = DecodeConfig()
    (video,) = list_videos(InputConfig(uris=[str(clip)]))
    plan = plan_video(video, settings, {}, every)
    detector = open_detector(DetectConfig())
    rounds = []
    for _ in range(_ROUNDS):
        start = time.process_time()
        for unit in plan.units:
            with clip.open("rb") as file:
                frames = sum(1 for _ in decode_pyav(file, unit, settings, DecodeAccount()))
        decode = time.process_time() - start
        start = time.process_time()
        chunks: list[tuple[UnitTask, Chunk]] = []
        for task in VideoTask(video, "key" * 20, "shard").units(plan, {}):
            for chunk in extract_chunks(task, partial(open_source, video, {}), settings, detector, every, compare):
                chunks.append((task, chunk))
        whole = time.process_time() - start
        outcomes = [chunk.outcome for _, chunk in chunks if chunk.last]
        seconds = {stage: sum(o.seconds.get(stage, 0) for o in outcomes) for stage in ("detect", "crop")}
        rounds.append({"decode": decode, "whole": whole, **seconds, "times_decode": sum(seconds.values()) / decode})
    least = {name: min(one[name] for one in rounds) for name in ("decode", "whole")}
    middle = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    faces = sum(chunk.faces.num_rows for _, chunk in chunks)
    rows = [chunk_row(dump(task).decode(), chunk) for task, chunk in chunks]
    return {
        "frames": frames,
        "faces": faces,
        "detected_share": sum(outcome.frames_detected for outcome in outcomes) / frames,
        "chips_a_face": sum(len(chunk.chips) for _, chunk in chunks) / max(1, faces),
        "decode_ms_a_frame": 1000 * middle["decode"] / frames,
        "detect_ms_a_frame": 1000 * middle["detect"] / frames,
        "crop_ms_a_face": 1000 * middle["crop"] / max(1, faces),
        "decode_detect_crop_ms_a_frame": 1000 * middle["whole"] / frames,
        "detect_and_crop_times_decode": middle["times_decode"],
        "least_decode_detect_crop_times_decode": least["whole"] / least["decode"],
        "bytes_a_face_through_the_object_store": sum(row.nbytes for row in rows) / max(1, faces),
    }


def measure_comparing(clip: Path) -> dict[str, float]:
    """Return the cost of checking whether a frame repeats the previous one."""
    (video,) = list_videos(InputConfig(uris=[str(clip)]))
    (unit, *_) = plan_video(video, DecodeConfig(), {}).units
    before: Frame | None = None
    taken, repeats = [], 0
    with clip.open("rb") as file:
        for frame in decode_pyav(file, unit, DecodeConfig(), DecodeAccount()):
            if before is not None:
                start = time.process_time()
                repeats += same_picture(before, frame)
                taken.append(time.process_time() - start)
            before = frame
    return {"repeat_share": repeats / len(taken), "compare_us_a_frame": 1e6 * statistics.median(taken)}


def synthetic() -> Checkpoint:
    """Return the full-size network with weights from a seed."""
    return resolve_checkpoint("synthetic", revision=None, sha256=None, accept_license=None, cache_dir=cache_dir())


def measure_engines(clip: Path, engines: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Time inference on the clip's own chips, by engine and precision; those that this CPU cannot run are left out."""
    (video,) = list_videos(InputConfig(uris=[str(clip)]))
    settings = DecodeConfig()
    plan = plan_video(video, settings, {})
    (task, *_) = VideoTask(video, "key", "shard").units(plan, {})
    chunk = next(extract_chunks(task, partial(open_source, video, {}), settings, open_detector(DetectConfig())))
    chips = chips_of(chunk_row(dump(task).decode(), chunk))[:_INFERRED]
    checkpoint = synthetic()
    found = {}
    for name, precision in engines:
        try:
            engine = open_engine(checkpoint, engine=name, precision=precision, batch_size=256)
        except ConfigError as error:
            print(f"{name} {precision}: left out: {error}")
            continue
        engine(chips[:16])
        start = time.process_time()
        engine(chips)
        found[f"{name} {precision}"] = 1000 * (time.process_time() - start) / len(chips)
    return found


def measure_tables(clip: Path, folder: Path) -> dict[str, float]:
    """Time landing and publishing, with the numbers that the network gives."""
    (video,) = list_videos(InputConfig(uris=[str(clip)]))
    settings = DecodeConfig()
    plan = plan_video(video, settings, {})
    partition = UnheldPartition(Partition(open_output(str(folder / "out"), create=True), "bench", "r"))
    ((manifest, (task,)),) = cut_shards([VideoTask(video, "0" * 64, "")], "run")
    write_manifest(partition, manifest)
    write_plan(partition.landing(video.video_id, task.work_key), plan)
    checkpoint = synthetic()
    infer = Infer(
        InferSettings("synthetic", None, checkpoint.sha256, None, "openvino", "fp32", "pyfeat", 256, 1, False, folder)
    )
    detector, land, landing, faces = open_detector(DetectConfig()), LandParts(partition, "run", 1), 0.0, 0
    for unit in task.units(plan, {}):
        for chunk in extract_chunks(unit, partial(open_source, video, {}), settings, detector):
            faces += chunk.faces.num_rows
            for row in infer(chunk_row(dump(unit).decode(), chunk)):
                start = time.process_time()
                land(row)
                landing += time.process_time() - start
    start = time.process_time()
    publish_shard(partition, manifest, PublishSettings("run", ("faces", "blendshapes", "mesh"), ()))
    return {"land_ms_a_face": 1000 * landing / faces, "publish_ms_a_face": 1000 * (time.process_time() - start) / faces}


def cores_per_gpu(stages: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the number of cores that keep one GPU busy, predicted from these CPU stages and published GPU figures."""
    cores: dict[str, dict[str, float]] = {}
    for name, stage in stages.items():
        ms_a_face = stage["decode_detect_crop_ms_a_frame"] * stage["frames"] / max(1, stage["faces"])
        cores[name] = {gpu: rate * ms_a_face / 1000 for gpu, rate in _PUBLISHED_FACES_PER_S.items()}
    return cores


def measure_repeats(folder: Path, made: dict[str, Path]) -> dict[str, Any]:
    """Measure the saving by repeating frames, and the cost of looking for them in clips without any."""
    repeating = {
        "360p MJPEG, each picture twice": clips.doubled(folder / "doubled.avi"),
        "720p, a still screen": clips.still_screen(folder / "still.mp4"),
    }
    found: dict[str, Any] = {}
    for name, clip in {**repeating, **made}.items():
        found[name] = measure_comparing(clip)
        if name in repeating:
            found[name] |= {f"compare {on}": measure(clip, 1, on) for on in (False, True)}
    return found


def measure_all(folder: Path, *, of_job: bool) -> dict[str, Any]:
    """Measure every stage on every clip; with `of_job`, on bench_job's clip and with its engines."""
    made = {"360p, 1 face": clips.plain(folder / "plain.mp4")}
    if not of_job:
        made["1080p, 1 face"] = clips.full_hd(folder / "hd.mp4")
        made["1080p from a camera, 1 face"] = clips.full_hd_from_camera(folder / "camera.mp4")
        made["1080p from a camera, 1 small face"] = clips.small_face_from_camera(folder / "small.mp4")
        made["4K from a camera, 1 small face"] = clips.small_face_from_camera(folder / "uhd.mp4", 3840, frames=32)
        made["1080p, 5 faces"] = clips.five_faces(folder / "five.mp4")
    return {
        "stages": {f"{name}, every {every}": measure(clip, every) for name, clip in made.items() for every in (1, 5)},
        "repeats": {} if of_job else measure_repeats(folder, made),
        "infer_ms_a_face": measure_engines(made["360p, 1 face"], _OF_JOB if of_job else (*_OF_JOB, ("torch", "fp32"))),
        "tables": measure_tables(made["360p, 1 face"], folder),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--job", action="store_true", help="only what bench_job needs")
    options = parser.parse_args()
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory(prefix="featray-bench-") as scratch:
        found = measure_all(Path(scratch), of_job=options.job)
    keys = [key for key in next(iter(found["stages"].values())) if key not in ("frames", "faces")]
    for name, stage in found["stages"].items():
        print(name)
        for key in keys:
            print(f"    {key:40} {stage[key]:12,.2f}")
    for name, repeats in found["repeats"].items():
        print(f"{name}: {repeats['repeat_share']:.0%} repeat, looking {repeats['compare_us_a_frame']:.0f} µs a frame")
        for on in ("compare False", "compare True"):
            if on in repeats:
                ms, chips = (repeats[on][key] for key in ("decode_detect_crop_ms_a_frame", "chips_a_face"))
                print(f"    {on}: decode, detect and crop {ms:.2f} ms a frame, {chips:.2f} chips a face")
    for key, value in {**found["infer_ms_a_face"], **found["tables"]}.items():
        print(f"{key:44} {value:12,.2f} {'ms a face' if ' ' in key else ''}")
    found["cores_per_gpu_predicted"] = cores_per_gpu(found["stages"])
    print("cores that feed one GPU (predicted, not measured: py-feat's published GPU figures)")
    for name, cores in found["cores_per_gpu_predicted"].items():
        print(f"    {name:28}" + "".join(f" {gpu} {count:5.1f}" for gpu, count in cores.items()))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
