"""A small output whose rows are made up: no job, no Ray, but the real writer and real commits.

Two datasets share a `video_id`. Values are drawn from few levels, thresholds of the queries among
them, so that ties and edges happen; faces come and go.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from featray.names import AU_NAMES_20, BLENDSHAPE_NAMES, EMOTION_NAMES_7
from featray.schema import TABLES
from featray.tables.commits import Commit, write_commit
from featray.tables.layout import Partition, open_output
from featray.tables.writer import TableWriter

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
RELEASE = "hand-made-0"
VIDEOS = {
    # dataset, video_id: site, frames, µs a frame, people, status
    ("one", "aaaa000000000000"): ("berlin", 400, 333_333, 2, "ok"),
    ("one", "bbbb000000000000"): ("oslo", 150, 200_000, 1, "partial"),
    ("one", "cccc000000000000"): ("oslo", 0, 1, 0, "failed"),
    ("one", "dddd000000000000"): ("oslo", 40, 1_000_000, 0, "partial"),
    ("two", "aaaa000000000000"): ("berlin", 60, 500_000, 1, "ok"),
}

Rows = dict[str, list[dict[str, object]]]


def write_output(root: Path) -> Rows:
    """Write the output below `root`; its rows by table, in the order in which they were made."""
    rng = np.random.default_rng(20260301)
    rows: Rows = {table: [] for table in TABLES}
    for (dataset, video_id), (site, frames, step_us, people, status) in VIDEOS.items():
        known = {"dataset": dataset, "release": RELEASE, "video_id": video_id, "run_id": "run-1", "site": site}
        sampled = _add_frames(rows, rng, known, frames, step_us, people)
        _add_video(rows, known, status, sampled, frames * step_us)
    output = open_output(str(root), create=True)
    scratch = root / "_featray" / "scratch"
    scratch.mkdir()
    for dataset in ("one", "two"):
        partition = Partition(output, dataset, RELEASE)
        files = []
        for table in TABLES:
            for site in ("berlin", "oslo"):
                chosen = [r for r in rows[table] if (r["dataset"], r.get("site")) == (dataset, site)]
                writer = TableWriter(
                    table,
                    folder=partition.folder(table, {"site": site}),
                    stem="part-0",
                    scratch=str(scratch),
                    footer={"release": RELEASE},
                    path_fields=("site",),
                    root=output.root,
                )
                writer.write_rows(chosen)
                files += writer.close()
        write_commit(partition, Commit("0", "run-1", 1, files))
    scratch.rmdir()
    return rows


def _add_frames(rows: Rows, rng: np.random.Generator, known: dict[str, object], frames: int, step_us: int, people: int):
    levels, away, sampled = np.full((people, 20), 5), np.zeros(people, bool), 0
    for number in range(frames):
        frame = {**known, "frame_index": number * 3, "pts_us": number * step_us}
        broken = bool(rng.random() < 0.03)
        faces = 0
        for person in range(people):
            levels[person] = np.clip(levels[person] + rng.integers(-2, 3, 20), 0, 10)
            away[person] ^= rng.random() < 0.2
            if not broken and rng.random() < 0.95:
                face = {**frame, "face_index": faces, "track_id": person}
                rows["faces"].append(face | _face(rng, levels[person], bool(away[person])))
                shapes = {name: _float32(rng.random()) for name in BLENDSHAPE_NAMES} | {"jawOpen": 0.5}
                rows["blendshapes"].append(face | shapes)
                faces += 1
        status = "decode_error" if broken else "ok" if faces else "no_face"
        rows["frames"].append({**frame, "status": status, "faces": faces, "keyframe": number % 50 == 0})
        sampled += 1
    return sampled


def _face(rng: np.random.Generator, levels: np.ndarray, away: bool) -> dict[str, object]:
    emotions = rng.choice([0.1, 0.2, 0.3], 7)
    pick = {
        "score": [0.7, 0.8, 0.95, 0.99],
        "face_px": [40.0, 48.0, 100.0, 101.0],
        "sharpness": [10.0, 30.0, 500.0, 600.0],
        "in_frame": [0.7, 0.8, 0.9, 1.0],
        "pose_yaw": [-0.8, -0.7, 0.0, 0.5, 0.7],
        "pose_pitch": [-0.4, 0.5, 0.6],
        "valence": [-0.5, 0.0, 0.25],
        "arousal": [0.1, 0.9],
        "gaze_angle": [0.36, 0.5] if away else [0.1, 0.35],
    }
    return {
        "interpolated": bool(rng.random() < 0.1),
        **{name: _float32(rng.choice(values)) for name, values in pick.items()},
        **{f"emotion_{name}": _float32(value) for name, value in zip(EMOTION_NAMES_7, emotions, strict=True)},
        **{name: _float32(level / 10) for name, level in zip(AU_NAMES_20, levels, strict=True)},
    }


def _add_video(rows: Rows, known: dict[str, object], status: str, sampled: int, duration_us: int) -> None:
    uri = f"s3://bucket/{known['site']}/{known['video_id']}.mp4"
    codes = {"ok": [], "partial": ["truncated", "decode_failed", "decode_failed"], "failed": ["not_a_video"]}[status]
    rows["videos"].append(
        {
            **known,
            "uri": uri,
            "status": status,
            "frames_sampled": sampled,
            "duration_us": 2 * duration_us or None,
            "error_code": codes[0] if codes else None,
        }
    )
    for number, code in enumerate(codes):
        rows["errors"].append(
            {
                **known,
                "uri": uri,
                "unit": len(codes) - number,
                "stage": "decode",
                "error_code": code,
                "message": f"{code} in {known['video_id']}, unit {len(codes) - number}",
                "attempt": 1,
                "at": START + timedelta(seconds=number),
            }
        )


def _float32(value: float) -> float:
    """As the tables hold it."""
    return float(np.float32(value))
