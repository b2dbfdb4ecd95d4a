"""The queries of configs/queries on the hand-made output, compared with the same answers from loops and NumPy."""

import itertools
import json
import re
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

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
    return folder, write_output(folder, derived=True)


def group(rows, *names):
    found = defaultdict(list)
    for row in rows:
        found[tuple(row[name] for name in names)].append(row)
    return dict(sorted(found.items()))


VIDEO = ("dataset", "release", "video_id")
TRACK = (*VIDEO, "track_id")


def timed(faces):
    """Return faces of a track as (face, duration in half µs, first of its piece, last of its piece), by loops."""
    pts = [face["pts_us"] for face in faces]
    steps = sorted(after - before for before, after in itertools.pairwise(pts))
    middle = steps[(len(steps) - 1) // 2] if steps else 1
    found = []
    for number, face in enumerate(faces):
        before = pts[number] - pts[number - 1] if number else None
        after = pts[number + 1] - pts[number] if number + 1 < len(pts) else None
        first = before is None or before > max(500_000, 3 * middle)
        last = after is None or after > max(500_000, 3 * middle)
        found.append((face, (middle if first else before) + (middle if last else after), first, last))
    return found


def episodes(faces, column, on, off, least_s):
    """Return stretches that stay at `off` or above, reach `on` and last; samples are too far apart for merging."""
    found, held = [], []
    for one in timed(faces):
        if held and (one[2] or one[0][column] < np.float32(off)):
            found.append(held)
            held = []
        if one[0][column] >= np.float32(off):
            held.append(one)
    found += [held] if held else []
    reached = [e for e in found if max(one[0][column] for one in e) >= np.float32(on)]
    return [e for e in reached if sum(one[1] for one in e) >= 2e6 * least_s]


def emotion_share(t):
    expected = []
    for key, faces in group(t["faces"], *VIDEO).items():
        of_tracks = [one for _, rows in group(faces, "track_id").items() for one in timed(rows)]
        cells = np.array([one[1] for one in of_tracks], float)
        rows = []
        for name in EMOTION_NAMES_7:
            values = np.array([one[0][f"emotion_{name}"] for one in of_tracks])
            rows.append((*key, name, cells.sum() / 2e6, (values * cells).sum() / cells.sum()))
        expected += sorted(rows, key=lambda row: (-round(row[5], 7), row[3]))
    return expected


def au12_onsets(t):
    expected = []
    for key, faces in group(t["faces"], *TRACK).items():
        for one in joined(faces, "AU12", 0.5, 0.35, 0.1, 0.1):
            smile = [face for face, *_ in one]
            apex = max(smile, key=lambda face: face["AU12"])
            times = smile[0]["pts_us"], smile[-1]["pts_us"], apex["pts_us"]
            expected.append((*key, *times, apex["AU12"], len(smile), one[0][2], one[-1][3]))
    return expected


def joined(faces, column, on, off, least_s, merge_s):
    """Return `episodes` of a track, with those less than `merge_s` apart merged."""
    every = timed(faces)
    place = {id(one[0]): number for number, one in enumerate(every)}
    found = []
    for one in episodes(faces, column, on, off, 0):
        first, last = place[id(one[0][0])], place[id(one[-1][0])]
        between = every[found[-1][1] + 1 : first] if found else []
        broken = any(item[2] for item in every[found[-1][1] + 1 : first + 1]) if found else True
        if not broken and sum(item[1] for item in between) < 2e6 * merge_s:
            found[-1] = found[-1][0], last
        else:
            found.append((first, last))
    runs = [every[first : last + 1] for first, last in found]
    return [run for run in runs if sum(item[1] for item in run) >= 2e6 * least_s]


def gaze_away(t):
    expected = []
    for key, faces in group(t["faces"], *TRACK).items():
        for one in joined(faces, "gaze_angle", 0.35, 0.3, 0.5, 0.2):
            start, end = one[0][0]["pts_us"], one[-1][0]["pts_us"]
            angle = sum(face["gaze_angle"] * cell for face, cell, *_ in one) / sum(cell for _, cell, *_ in one)
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


def seen_s(faces):
    return sum(one[1] for one in timed(faces)) / 2e6


def median_over_time(faces, column):
    """Return the smallest value that is not exceeded for half of the time."""
    ranked = sorted((one[0][column], one[1]) for one in timed(faces))
    total, so_far = sum(cell for _, cell in ranked), 0
    for value, cell in ranked:
        so_far += cell
        if 2 * so_far >= total:
            return value
    raise AssertionError


def mean_over_time(faces, column):
    every = timed(faces)
    return sum(one[0][column] * one[1] for one in every) / sum(one[1] for one in every)


def tracks(t):
    frames = {key: [row["frame_index"] for row in rows] for key, rows in group(t["frames"], *VIDEO).items()}
    expected = []
    for key, faces in group(t["faces"], *TRACK).items():
        first, last = faces[0], faces[-1]
        span = [n for n in frames[key[:3]] if first["frame_index"] <= n <= last["frame_index"]]
        medians = [median_over_time(faces, name) for name in ("face_px", "sharpness", "in_frame")]
        means = [mean_over_time(faces, name) for name in ("AU12", "valence", "arousal")]
        times = first["pts_us"], last["pts_us"]
        row = (*key, *times, len(faces), len(faces) / len(span), *medians, *means)
        expected.append((key[:3], -np.float32(seen_s(faces)), row))
    return [row for _, _, row in sorted(expected, key=lambda item: (*item[:2], item[2][3]))]


def expressive_moments(t):
    expected = []
    for key, faces in group(t["faces"], *VIDEO).items():
        windows = defaultdict(list)
        for (track,), rows in group(faces, "track_id").items():
            for au in AU_NAMES_20:
                for one in joined(rows, au, 0.5, 0.35, 0.1, 0.1) if au != "AU43" else []:
                    apex = max((face for face, *_ in one), key=lambda face: face[au])
                    windows[apex["pts_us"] // 1_000_000 * 1_000_000, track].append(apex[au])
        moments = [(start, track, sum(found), len(found)) for (start, track), found in windows.items()]
        moments.sort(key=lambda m: (-round(m[2], 9), m[0], m[1]))
        expected += [(*key, place, *moment) for place, moment in enumerate(moments[:3], 1)]
    return expected


def blinks_and_gaze(t):
    expected = []
    for key, faces in group(t["faces"], *TRACK).items():
        every = timed(faces)
        if seen_s(faces) < 10:
            continue
        inside = [pair for pair in itertools.pairwise(every) if not pair[1][2]]
        rate = len(inside) / sum(after[0]["pts_us"] - before[0]["pts_us"] for before, after in inside) * 1e6
        shut = [face["frame_index"] // 3 // 40 for face, *_ in every if face["frame_index"] // 3 % 40 < 3]
        blinks = (len(set(shut)), len(set(shut)) / seen_s(faces) * 60) if rate >= 15 else (None, None)
        sides = [None, None] if rate < 15 else [0 if key[3] else blinks[0], 0]
        on = sum(cell for face, cell, *_ in every if face["gaze_angle"] < np.float32(0.35)) / sum(
            c for _, c, *_ in every
        )
        expected.append((*key, seen_s(faces), rate, *blinks, *sides, on))
    assert any(row[6] is None for row in expected) and any(row[6] for row in expected)
    return expected


def answered_smiles(t):
    expected = []
    for key, faces in group(t["faces"], *VIDEO).items():
        smiles = []
        for (track,), rows in group(faces, "track_id").items():
            cheeks = {id(face) for one in joined(rows, "AU06", 0.5, 0.35, 0.1, 0.1) for face, *_ in one}
            for one in joined(rows, "AU12", 0.5, 0.35, 0.25, 0.25):
                raised = sum(cell for face, cell, *_ in one if id(face) in cheeks)
                kind = "with_AU06" if 2 * raised >= sum(cell for _, cell, *_ in one) else "without_AU06"
                smiles += [] if one[0][2] else [(one[0][0]["pts_us"], track, kind)]
        for start, track, _ in sorted(smiles):
            later = [o for o in smiles if o[1] != track and start < o[0] <= start + 2_000_000]
            if later:
                answer = min(later)
                expected.append((*key, track, start, *answer, (answer[0] - start) / 1e6))
    return expected


def group_comparison(t):
    people = defaultdict(list)
    for video in t["videos"]:
        faces = [face for face in t["faces"] if all(face[name] == video[name] for name in VIDEO)]
        of_tracks = group(faces, "track_id")
        if of_tracks:
            main = max(of_tracks.values(), key=seen_s)
            about = json.loads(video["extra"])
            frames = [f for f in t["frames"] if all(f[name] == video[name] for name in VIDEO)]
            span = [f for f in frames if main[0]["frame_index"] <= f["frame_index"] <= main[-1]["frame_index"]]
            assert len(main) / len(span) > 0.8
            smiling = sum(one[1] for run in joined(main, "AU12", 0.5, 0.35, 0.1, 0.1) for one in run)
            people[video["dataset"], video["release"], about["condition"], about["participant"]].append(
                (smiling / 2e6 / seen_s(main), *next(
                    (row[7], row[10]) for row in blinks_and_gaze(t) if row[:4] == tuple(main[0][n] for n in TRACK)
                ))
            )  # fmt: skip
    groups = defaultdict(list)
    for (dataset, release, condition, _), videos in sorted(people.items()):
        columns = [[value for value in column if value is not None] for column in zip(*videos, strict=True)]
        means = [mean(column) if column else None for column in columns]
        groups[dataset, release, condition].append((len(videos), *means))
    expected = []
    for key, persons in groups.items():
        videos, smiling, blinks, gaze = zip(*persons, strict=True)
        known = [one for one in blinks if one is not None]
        spread = stdev(smiling) if len(smiling) > 1 else None
        about = mean(smiling), spread, mean(known) if known else None, mean(gaze)
        expected.append((*key, len(persons), sum(videos), *about))
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


def blendshape_agreement(t):
    sql = (QUERIES / "blendshape_agreement.sql").read_text()
    expected = []
    for key, faces in group(t["faces"], "dataset", "release").items():
        shapes = [row for row in t["blendshapes"] if row["dataset"] == key[0]]
        for au, name in re.findall(r"\('(AU\d\d)', '(\w+)'\)", sql):
            sides = [one for one in shapes[0] if re.fullmatch(f"{name}(Left|Right|Lower|Upper)?", one)]
            a = np.array([face[au] for face in faces])
            b = np.array([[row[side] for side in sides] for row in shapes]).mean(1)
            same = name == "jawOpen"  # constant in the made-up rows
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
        expressive_moments, blendshape_agreement, failed_videos, blinks_and_gaze, answered_smiles, group_comparison,
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
