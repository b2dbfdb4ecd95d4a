"""The queries of configs/queries on the hand-made output, against the same answers from loops and NumPy."""

import itertools
import re
from collections import defaultdict
from pathlib import Path
from statistics import mean, median

import numpy as np
import pytest

from featray.names import AU_NAMES_20, EMOTION_NAMES_7
from featray.tables.layout import open_output
from featray.tables.query import connect, run_sql
from tests.fixtures.handmade import write_output

QUERIES = Path(__file__).parents[3] / "configs" / "queries"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "out"
    return folder, write_output(folder)


def group(rows, *names):
    found = defaultdict(list)
    for row in rows:
        found[tuple(row[name] for name in names)].append(row)
    return dict(sorted(found.items()))


VIDEO = ("dataset", "release", "video_id")
TRACK = (*VIDEO, "track_id")


def emotion_share(t):
    expected = []
    for key, faces in group(t["faces"], *VIDEO).items():
        values = np.array([[face[f"emotion_{name}"] for name in EMOTION_NAMES_7] for face in faces])
        wins = np.bincount(values.argmax(1), minlength=7)
        rows = [
            (*key, name, len(faces), int(n), n / len(faces), m)
            for name, n, m in zip(EMOTION_NAMES_7, wins, values.mean(0), strict=True)
        ]
        expected += sorted(rows, key=lambda row: (-row[6], row[3]))
    return expected


def au12_onsets(t):
    expected = []
    for key, faces in group(t["faces"], *TRACK).items():
        on, smile, smiles = False, [], []
        for position, face in enumerate(faces):
            was, on = on, face["AU12"] >= 0.6 or (on and not face["AU12"] <= 0.4)
            if on and not was:
                smile = []
                smiles.append((position == 0, smile))
            if on:
                smile.append(face)
        for cut, smile in smiles:
            apex = max(smile, key=lambda face: face["AU12"])
            ends = smile[-1] is faces[-1]
            expected.append(
                (*key, smile[0]["pts_us"], smile[-1]["pts_us"], apex["pts_us"], apex["AU12"], len(smile), cut, ends)
            )
    return expected


def gaze_away(t):
    expected = []
    for key, faces in group(t["faces"], *TRACK).items():
        episodes, before = [], None
        for face in faces:
            if face["gaze_angle"] > 0.35:
                near = bool(episodes) and face["pts_us"] - episodes[-1][-1]["pts_us"] <= 200_000
                if episodes and (before is episodes[-1][-1] or near):
                    episodes[-1].append(face)
                else:
                    episodes.append([face])
            before = face
        for one in episodes:
            start, end = one[0]["pts_us"], one[-1]["pts_us"]
            if end - start >= 500_000:
                angle = mean(face["gaze_angle"] for face in one)
                expected.append((*key, start, end, (end - start) / 1e6, len(one), angle))
    return expected


def au_cooccurrence(t):
    expected = []
    for key, faces in group(t["faces"], "dataset", "release").items():
        active = {au: np.array([face[au] >= 0.5 for face in faces]) for au in AU_NAMES_20}
        rows = []
        for a, b in itertools.combinations(AU_NAMES_20, 2):
            n_a, n_b, both = (int(x.sum()) for x in (active[a], active[b], active[a] & active[b]))
            if both:
                either = int((active[a] | active[b]).sum())
                rows.append((*key, a, b, len(faces), n_a, n_b, both, both / either, both / n_a / n_b * len(faces)))
        expected += sorted(rows, key=lambda row: (-row[-1], row[2], row[3]))
    return expected


def faces_per_minute(t):
    frames = [{**frame, "minute": frame["pts_us"] // 60_000_000} for frame in t["frames"]]
    expected = []
    for key, rows in group(frames, *VIDEO, "minute").items():
        seen = [row["faces"] for row in rows if row["status"] != "decode_error"]
        counts = [row["faces"] for row in rows]
        with_face = sum(count > 0 for count in counts)
        expected.append(
            (*key, len(rows), with_face, len(rows) - len(seen), sum(counts), mean(seen) if seen else None, max(counts))
        )
    return expected


def tracks(t):
    frames = {key: [row["frame_index"] for row in rows] for key, rows in group(t["frames"], *VIDEO).items()}
    expected = []
    for key, faces in group(t["faces"], *TRACK).items():
        first, last = faces[0], faces[-1]
        span = [n for n in frames[key[:3]] if first["frame_index"] <= n <= last["frame_index"]]
        medians = [median(face[name] for face in faces) for name in ("score", "face_px", "sharpness", "in_frame")]
        best = max(faces, key=lambda face: face["sharpness"])["frame_index"]
        means = [mean(face[name] for face in faces) for name in ("AU12", "valence", "arousal")]
        expected.append(
            (*key, first["pts_us"], last["pts_us"], len(faces), len(faces) / len(span), *medians, best, *means)
        )
    return expected


def good_faces(t):
    uris = {(v["dataset"], v["video_id"]): v["uri"] for v in t["videos"]}
    names = ["track_id", "score", "face_px", "sharpness", "in_frame", "pose_yaw", "pose_pitch"]
    names += [f"emotion_{name}" for name in EMOTION_NAMES_7] + ["valence", "arousal"]
    return [
        (
            *(face[name] for name in VIDEO),
            uris[face["dataset"], face["video_id"]],
            None,
            *(face[name] for name in ("frame_index", "pts_us", "face_index", *names)),
        )
        for face in sorted(t["faces"], key=lambda f: (f["dataset"], f["video_id"], f["pts_us"], f["face_index"]))
        if face["score"] >= 0.8 and face["face_px"] >= 48 and face["sharpness"] >= 30 and face["in_frame"] >= 0.8
        if abs(face["pose_yaw"]) <= 0.7 and not face["interpolated"]
    ]


def expressive_moments(t):
    expected = []
    for key, faces in group(t["faces"], *VIDEO).items():
        moments = []
        for (track,), rows in group(faces, "track_id").items():
            values = np.array([[row[au] for au in AU_NAMES_20] for row in rows])
            distances = np.linalg.norm(values - values.mean(0), axis=1)
            windows = defaultdict(list)
            for row, distance in zip(rows, distances, strict=True):
                windows[row["pts_us"] // 1_000_000 * 1_000_000].append((distance, row["valence"], row["arousal"]))
            for start, found in windows.items():
                distance, valence, arousal = np.mean(found, axis=0)
                moments.append((start, track, distance, len(found), valence, arousal))
        moments.sort(key=lambda m: (-m[2], m[0], m[1]))
        expected += [(*key, place, *moment) for place, moment in enumerate(moments[:3], 1)]
    return expected


def blendshape_agreement(t):
    sql = (QUERIES / "blendshape_agreement.sql").read_text()
    expected = []
    for key, faces in group(t["faces"], "dataset", "release").items():
        shapes = [row for row in t["blendshapes"] if row["dataset"] == key[0]]
        for au, name in re.findall(r"\('(AU\d\d)', '(\w+)'\)", sql):
            sides = [one for one in shapes[0] if re.fullmatch(f"{name}(Left|Right|Lower|Upper)?", one)]
            a = np.array([face[au] for face in faces])
            b = np.array([[row[side] for side in sides] for row in shapes]).mean(1)
            same = name == "jawOpen"  # never changes in the made-up rows
            expected.append((*key, au, name, len(faces), a.mean(), b.mean(), None if same else np.corrcoef(a, b)[0, 1]))
    assert len(expected) == 2 * 17
    return expected


def failed_videos(t):
    errors, frames = group(t["errors"], *VIDEO), group(t["frames"], *VIDEO)
    expected = []
    for video in t["videos"]:
        key = tuple(video[name] for name in VIDEO)
        if video["status"] == "ok":
            continue
        found = sorted(errors[key], key=lambda row: row["unit"])
        codes = ", ".join(sorted({row["error_code"] for row in found}))
        times = [row["pts_us"] for row in frames.get(key, [])]
        covered = (max(times) - min(times)) / video["duration_us"] if times else None
        expected.append(
            (*key[:2], video["uri"], None, key[2], video["status"], codes, len(found), found[0]["message"],
             video["frames_sampled"], covered)
        )  # fmt: skip
    return sorted(expected, key=lambda row: (row[5], row[2]))


EXPECTED = {
    function.__name__: function
    for function in (
        emotion_share, au12_onsets, gaze_away, au_cooccurrence, faces_per_minute, tracks, good_faces,
        expressive_moments, blendshape_agreement, failed_videos,
    )
}  # fmt: skip


def test_every_query_is_here_and_says_what_it_is():
    files = sorted(QUERIES.glob("*.sql"))
    assert [file.stem for file in files] == sorted(EXPECTED)
    for file in files:
        header = file.read_text().split("\nWITH")[0].split("\nSELECT")[0]
        assert re.match(r"-- .+\?\n--\n", header), file
        assert re.search(r"[Oo]ne row ", header) and re.search(r"Runs on DuckDB( and Spark SQL)?\.$", header.strip()), (
            file
        )


@pytest.mark.parametrize("name", EXPECTED)
def test_a_query_answers_as_the_loops_do(made, name):
    folder, rows = made
    found = run_sql(connect(open_output(str(folder))), (QUERIES / f"{name}.sql").read_text()).read_all()
    got = [tuple(row.values()) for row in found.to_pylist()]
    expected = EXPECTED[name](rows)
    assert len(expected) > 1
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert [value if isinstance(value, str) or value is None else pytest.approx(value, rel=1e-6, abs=1e-7)
                for value in other] == list(one)  # fmt: skip
