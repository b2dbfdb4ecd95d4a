"""Cost of pictures compared with a video of them: python -m tests.benchmarks.bench_pictures [pictures [turns [wide]]].

Writes small JPEGs without a face as a folder and as a tar, and an x264 video of them. Each in turn is listed, planned,
decoded and searched for faces in the decoding process, as in a run; the network has nothing to do, so reading has
the largest possible share. CPU seconds are those of this process and its child, without start-up; other processes
on the machine change them little.

    python -m tests.benchmarks.bench_pictures plan 100000

lists and plans that many pictures, each form in a separate process: CPU seconds, peak memory, bytes of the plan.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import av

from featray.config import DecodeConfig, DetectConfig, InputConfig
from featray.extract.child import ChildSettings
from featray.extract.isolation import IsolatedDecoder
from featray.extract.plan import VideoTask
from featray.records import dump
from featray.sources.listing import list_videos
from tests.fixtures.sequences import FPS, clip_pictures, write_tar

CLIP = Path(__file__).parents[2] / "featray" / "demo_clips" / "no_face.mp4"


def plant(folder: Path, count: int, width_px: int, *, video: bool = True) -> dict[str, Path]:
    """Write the same pictures in the three forms."""
    forms = {"folder": folder / "pictures", "tar": folder / "pictures.tar", "video": folder / "pictures.mp4"}
    images = clip_pictures(CLIP, 95, width_px)
    images = [image.crop((0, 0, image.width // 2 * 2, image.height // 2 * 2)) for image in images]
    written = []
    for image in images:
        image.save(file := io.BytesIO(), "JPEG", quality=90)
        written.append(file.getvalue())
    files = [(f"{i:06d}.jpg", written[i % len(written)]) for i in range(count)]
    forms["folder"].mkdir(parents=True)
    for name, data in files:
        (forms["folder"] / name).write_bytes(data)
    write_tar(forms["tar"], files)
    if video:
        with av.open(str(forms["video"]), "w") as target:
            stream = target.add_stream("libx264", rate=FPS)
            stream.width, stream.height, stream.pix_fmt = *images[0].size, "yuv420p"
            for i in range(count):
                target.mux(stream.encode(av.VideoFrame.from_image(images[i % len(images)])))
            target.mux(stream.encode())
    return forms


def cpu_seconds(child: int | None = None) -> float:
    """Return CPU seconds of this process and a child."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime
    if child is not None:
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        seconds += sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
    return seconds


def extract(path: Path, decoder: IsolatedDecoder) -> tuple[int, float]:
    """Return the number of frames that were searched, and the CPU seconds for that."""
    begin, frames = cpu_seconds(decoder.process_id), 0
    for video in list_videos(InputConfig(uris=[str(path)], sequence_fps=FPS)):
        plan = decoder.plan(video)
        assert plan.failure is None, plan.failure
        for task in VideoTask(video, "0" * 64, "bench").units(plan, {}):
            for chunk in decoder.chunks(task):
                frames += chunk.frames.num_rows
    return frames, cpu_seconds(decoder.process_id) - begin


def plan(path: Path) -> str:
    """Return the cost of listing and planning, as text."""
    begin = cpu_seconds()
    (video,) = list_videos(InputConfig(uris=[str(path)], sequence_fps=FPS))
    listed = cpu_seconds()
    found = IsolatedDecoder(ChildSettings(DecodeConfig(), DetectConfig(), {})).plan(video)
    assert found.failure is None, found.failure
    planned = cpu_seconds()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"listed in {listed - begin:.1f} s CPU, planned in {planned - listed:.1f}, {len(found.units)} units, "
        f"plan {len(dump(found)) / 1e6:.1f} MB, peak {peak_mb:.0f} MB"
    )


def in_child(work: Callable[[], object]) -> None:
    """Run `work` in a separate process, so that its memory is measured alone."""
    if (child := os.fork()) == 0:
        work()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def measure_plans(folder: Path, count: int) -> None:
    """Measure the folder and the tar, but not the video, whose plan is of packets."""
    in_child(lambda: plant(folder, count, 32, video=False))
    for name in ("pictures", "pictures.tar"):
        in_child(lambda name=name: print(f"{count:,}, {name}: {plan(folder / name)}", flush=True))


def measure(folder: Path, count: int, turns: int, width_px: int) -> None:
    """Alternate the three forms; print ms of CPU a frame, and frames/s as a share of the video's."""
    forms = plant(folder / "all", count, width_px)
    decoder = IsolatedDecoder(ChildSettings(DecodeConfig(), DetectConfig(), {}))
    for path in plant(folder / "few", 20, width_px).values():
        extract(path, decoder)  # starts the process, and loads the detector
    for turn in range(turns):
        spent = {}
        for name, path in forms.items():
            frames, seconds = extract(path, decoder)
            assert frames == count
            spent[name] = round(1000 * seconds / frames, 3)
        share = {name: round(spent["video"] / spent[name], 2) for name in forms}
        print(json.dumps({"turn": turn, "width_px": width_px, "ms": spent, "of_video": share}), flush=True)
    decoder.close()


def main() -> None:
    """Run the measurement that the command line asks for."""
    arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        if arguments[:1] == ["plan"]:
            measure_plans(Path(folder), int((*arguments[1:], "100000")[0]))
        else:
            given = [*map(int, arguments), *(1000, 2, 160)[len(arguments) :]]
            measure(Path(folder), *given)


if __name__ == "__main__":
    main()
