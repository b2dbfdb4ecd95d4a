"""The derived rows of tracks: signals with a known truth, and all kinds of events."""

from fractions import Fraction

import numpy as np
import pytest

from featray.config import FramesPerSecond
from featray.config_derive import KINDS, BlinkConfig, DeriveConfig, EventConfig, MovementConfig
from featray.errors import ConfigError
from featray.findings.asymmetry import mesh_differences
from featray.findings.batch import Batch, needed_blendshapes, needed_faces, parse_events
from featray.findings.blinks import can_show_blinks, find_blinks
from featray.findings.movement import band, find_swings
from featray.findings.samples import lay_out
from featray.names import AU_NAMES_20, BLENDSHAPE_NAMES
from featray.schema import DERIVED_TABLES, FACES, TABLES
from featray.video.units import Sampler, Unit
from tests.fixtures.signals import clock

ADDED = {"dataset", "release", "derivation", "video_id", "track_id", "coverage"}


def columns_of(count, seed, quiet=()):
    """Return made-up faces: levels that hold for a while, plus noise; columns in `quiet` stay at 0.1."""
    rng = np.random.default_rng(seed)
    names = [c.name for c in FACES if str(c.type) == "float"] + list(BLENDSHAPE_NAMES)
    made = {name: np.repeat(rng.random(count // 10 + 1), 10)[:count] + rng.normal(0, 0.05, count) for name in names}
    made |= dict.fromkeys(quiet, np.full(count, 0.1))
    return {name: values.astype(np.float32) for name, values in made.items()}


def derive(pts_us, track, columns, config=None):
    samples = lay_out(np.asarray(pts_us, np.int64), np.asarray(track, np.int64), 0.5)
    high = {name: columns["AU01"] for name in ("mouth", "brows")}
    read = columns.__getitem__
    return Batch(samples, read, read, high.__getitem__, config or DeriveConfig()).derive()


def test_the_columns_are_those_of_the_schemas_and_the_settings_say_which_are_read():
    config = DeriveConfig(
        events=[EventConfig(name="grin", expression="AU12 * jawOpen + score", on_at=1, off_at=1, least_s=0, merge_s=0)]
    )
    read = set()
    pts, columns = clock("25", 4, None), columns_of(100, 0)

    class Noted(dict):
        def __getitem__(self, name):
            read.add(name)
            return super().__getitem__(name)

    tracks, events = derive(pts, np.zeros(100), Noted(columns), config)
    assert set(tracks.column_names) | ADDED == {c.name for c in TABLES["tracks"]}
    assert set(events.column_names) - {"track"} | ADDED - {"coverage"} == {c.name for c in TABLES["events"]}
    assert read == {*needed_faces(config), *needed_blendshapes(config)}
    for table, found in zip(DERIVED_TABLES, (tracks, events), strict=True):
        for column in TABLES[table]:
            if column.name in found.column_names:
                assert found[column.name].type == column.type, column.name


def test_a_track_is_the_same_to_the_bit_alone_and_among_others():
    rng = np.random.default_rng(1)
    config = DeriveConfig(smooth_s=0.05)
    made = []
    for number in range(6):
        pts = clock(("8", "12.5", "29.97", "60", "240", "vfr")[number], rng.uniform(1, 20), rng)
        made.append((pts, columns_of(len(pts), number)))
    alone = [derive(pts, np.zeros(len(pts)), columns, config) for pts, columns in made]
    pts = np.concatenate([pts for pts, _ in made])
    track = np.repeat(np.arange(6), [len(pts) for pts, _ in made])
    columns = {name: np.concatenate([columns[name] for _, columns in made]) for name in made[0][1]}
    tracks, events = derive(pts, track, columns, config)
    for number, (one_track, its_events) in enumerate(alone):
        assert tracks.slice(number, 1).equals(one_track)
        here = events.filter(np.asarray(events["track"]) == number)
        assert here.num_rows and here.drop_columns(["track"]).equals(its_events.drop_columns(["track"]))


def test_events_of_a_track_are_numbered_by_start_then_kind_and_agree_with_its_row():
    rng = np.random.default_rng(2)
    pts, columns = clock("vfr", 60, rng), None
    columns = columns_of(len(pts), 3)
    tracks, events = derive(pts, np.zeros(len(pts)), columns)
    rows = events.to_pylist()
    assert [row["event_id"] for row in rows] == list(range(len(rows)))
    assert [(row["start_us"], row["kind"]) for row in rows] == sorted((row["start_us"], row["kind"]) for row in rows)
    assert all(row["start_us"] <= row["peak_us"] <= row["end_us"] and row["frames"] >= 1 for row in rows)
    assert {row["kind"] for row in rows} <= set(KINDS)
    (track,) = tracks.to_pylist()
    for name in AU_NAMES_20:
        of_unit = [row for row in rows if row["kind"] == name]
        assert track[f"{name}_episodes"] == len(of_unit)
        assert all(row["peak"] == columns[name][pts == row["peak_us"]] for row in of_unit)
    spent = sum(track[f"AU12_{name}"] for name in ("episode_s",)) * track["AU12_episodes"]
    assert spent == pytest.approx(track["AU12_active"] * track["seen_s"], rel=1e-4)


@pytest.mark.parametrize("rate", ["25", "29.97", "60", "240", "vfr"])
def test_statistics_are_of_time(rate):
    rng = np.random.default_rng(4)
    pts = clock(rate, 30, rng)
    columns = columns_of(len(pts), 4)
    columns["AU01"] = (pts >= 15_000_000).astype(np.float32)  # half of the time, at any frame rate
    (row,) = derive(pts, np.zeros(len(pts)), columns)[0].to_pylist()
    step = 0.1 if rate == "vfr" else 1 / float(rate)
    assert row["AU01_mean"] == pytest.approx(0.5, abs=step / 15)
    assert row["AU01_active"] == row["AU01_mean"] and row["AU01_episodes"] == 1
    assert row["seen_s"] == pytest.approx(30, abs=2 * step)
    assert row["AU01_sd"] == pytest.approx(0.5, abs=0.01) and row["AU01_p05"] == 0 and row["AU01_p95"] == 1


def blinking(rate, rng, minutes=1):
    pts = clock(rate, 60 * minutes, rng)
    times = np.arange(2, 60 * minutes - 2, 3.0) + rng.uniform(-0.5, 0.5, len(np.arange(2, 60 * minutes - 2, 3.0)))
    sides = rng.choice(["both", "both", "left", "right"], len(times))
    eyes = {}
    for eye in ("left", "right"):
        eyes[eye] = 0.12 + rng.normal(0, 0.02, len(pts))
        for at, side in zip(times, sides, strict=True):
            if side in (eye, "both"):
                eyes[eye] += 0.6 * np.maximum(0, 1 - np.abs(pts / 1e6 - at) / 0.12)
    return pts, times, sides, eyes


@pytest.mark.parametrize("rate", ["25", "29.97", "60", "240"])
def test_every_blink_is_found_in_the_eyes_that_made_it(rate):
    pts, times, sides, eyes = blinking(rate, np.random.default_rng(5))
    long = (pts >= 30_600_000) & (pts < 31_400_000)  # eyes closed for longer than a blink
    samples = lay_out(pts, np.zeros(len(pts), np.int64), 0.5)
    left, right = (np.where(long, 0.8, eyes[eye]).astype(np.float32) for eye in ("left", "right"))
    keep = np.array([not 30.3 < at < 31.7 for at in times])
    found = find_blinks(left, right, samples, BlinkConfig())
    assert len(found.spans) == keep.sum()
    step = 1 / float(rate)
    for start, end, at in zip(found.spans.starts, found.spans.ends, times[keep], strict=True):
        assert pts[start] / 1e6 - step <= at <= pts[end] / 1e6 + step
        assert (pts[end] - pts[start]) / 1e6 <= 0.24 + step
    assert [
        ("left", "right", "both")[2 if b else int(r)]
        for b, r in zip(found.left & found.right, found.right, strict=True)
    ] == list(sides[keep])


def test_where_blinks_cannot_be_shown_their_count_is_null():
    pts = clock("12.5", 60, None)
    columns = columns_of(len(pts), 6)
    tracks, events = derive(pts, np.zeros(len(pts)), columns)
    assert tracks["blinks"].to_pylist() == tracks["blinks_per_min"].to_pylist() == [None]
    assert "blink" not in events["kind"].to_pylist()
    columns |= {"eyeBlinkLeft": np.full(len(pts), 0.1, np.float32), "eyeBlinkRight": np.full(len(pts), 0.1, np.float32)}
    fast = derive(clock("25", 600, None)[: len(pts)], np.zeros(len(pts)), columns)[0]
    assert fast["blinks"].to_pylist() == [0]


@pytest.mark.parametrize("rate", ["12.5", "25", "60", "240", "vfr"])
def test_nods_are_movements_to_and_fro_and_turns_and_drifts_are_none(rate):
    rng = np.random.default_rng(8)
    pts = clock(rate, 60, rng)
    at = pts / 1e6
    pitch = rng.normal(0, 0.003, len(pts)) + 0.3 * (at > 40) + 0.1 * np.sin(2 * np.pi * at / 20)
    nods = [(10, 2.0, 0.15), (25, 1.5, 0.1), (50, 2.5, 0.12)]  # s, Hz, rad; three periods each
    for begin, hertz, size in nods:
        inside = (at >= begin) & (at < begin + 3 / hertz)
        pitch += np.where(inside, size * np.sin(2 * np.pi * hertz * (at - begin)), 0)
    yaw = rng.normal(0, 0.003, len(pts))
    samples = lay_out(pts, np.zeros(len(pts), np.int64), 0.5)
    config = MovementConfig()
    moving, across = (band(values.astype(np.float32), samples, config) for values in (pitch, yaw))
    spans = find_swings(moving, across, samples, config)
    assert len(spans) == 3 and not len(find_swings(across, moving, samples, config))
    for start, end, (begin, hertz, _) in zip(spans.starts, spans.ends, nods, strict=True):
        assert abs(at[start] - begin) <= 0.5 / hertz and abs(at[end] - begin - 3 / hertz) <= 0.5 / hertz


def test_smiles_say_whether_the_cheeks_are_raised():
    pts = clock("25", 20, None)
    at = pts / 1e6
    columns = columns_of(len(pts), 9)
    columns["AU12"] = (((at > 2) & (at < 5)) | ((at > 10) & (at < 13))).astype(np.float32)
    columns["AU06"] = ((at > 11) & (at < 13)).astype(np.float32)
    events = derive(pts, np.zeros(len(pts)), columns)[1].to_pylist()
    smiles = [(row["start_us"], row["end_us"], row["variant"]) for row in events if row["kind"] == "smile"]
    assert smiles == [(2_040_000, 4_960_000, "without_AU06"), (10_040_000, 12_960_000, "with_AU06")]


def test_thresholds_may_count_from_the_tracks_own_baseline():
    pts = clock("25", 20, None)
    columns = columns_of(len(pts), 10)
    columns["AU04"] = np.where((pts > 5e6) & (pts < 6e6), 0.75, 0.45).astype(np.float32)  # a face with a frown at rest
    unit = {"on_at": 0.25, "off_at": 0.15, "least_s": 0.1, "merge_s": 0.1, "relative": True}
    config = DeriveConfig.model_validate({"action_units": unit})
    absolute, relative = (
        derive(pts, np.zeros(len(pts)), columns, one)[0].to_pylist()[0] for one in (DeriveConfig(), config)
    )
    assert (absolute["AU04_active"], absolute["AU04_baseline"]) == (1.0, np.float32(0.45))
    assert relative["AU04_episodes"] == 1 and relative["AU04_active"] == pytest.approx(0.05, abs=0.01)
    assert config.derivation != DeriveConfig().derivation == DeriveConfig(enabled=False).derivation


def test_columns_that_are_null_give_null_and_no_events():
    pts = clock("25", 4, None)
    nothing = dict.fromkeys(columns_of(1, 0), np.full(100, np.nan, np.float32))
    tracks, events = derive(pts, np.zeros(100), nothing | {"face_px": np.full(100, 60, np.float32)})
    (row,) = tracks.to_pylist()
    assert events.num_rows == 0 and row["frames"] == 100 and row["face_px_median"] == 60
    assert row["AU12_mean"] is row["AU12_baseline"] is row["gaze_on_camera"] is row["asymmetry_mouthSmile"] is None


def event(expression):
    return DeriveConfig(
        events=[EventConfig(name="own", expression=expression, on_at=1, off_at=1, least_s=0, merge_s=0)]
    )


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("AU12 +", "is not arithmetic over columns"),
        ("AU99 + 1", "AU99: no such column"),
        ("1 + 1", "uses no column"),
        ("__import__('os').system('true')", "is not supported"),
        ("AU12.real", "is not supported"),
        ("[AU12 for x in y]", "is not supported"),
        ("'text' + AU12", "is not supported"),
        ("AU12 % 2", "Mod is not supported"),
        ("0 < AU12 < 1", "is not supported"),
        ("max(AU12)", "is not supported"),
        ("(" * 300 + "AU12" + ")" * 300, "is not arithmetic over columns"),
        ("AU12 + " + "9" * 400, "is not arithmetic over columns"),
        ("AU12 + " + "9" * 990, "is not arithmetic over columns"),
    ],
)
def test_what_is_no_arithmetic_over_columns_is_refused_in_one_line(expression, complaint):
    with pytest.raises(ConfigError, match=r"^derive\.events: own\.expression: ") as caught:
        parse_events(event(expression))
    assert complaint in str(caught.value) and "\n" not in str(caught.value)


def test_expressions_compute_what_they_say():
    columns = columns_of(50, 11)
    columns["AU01"][7] = np.nan
    for text in (
        "(AU12 + 2 * AU06) / 2 - 1",
        "max(AU12, AU06, 0.5)",
        "abs(-AU12) ** 2",
        "AU12 > 0.5 and not AU06 > 0.5",
    ):
        (own,) = parse_events(event(text)).values()
        wanted = [
            float(eval(text, {"max": max, "abs": abs}, {n: float(columns[n][i]) for n in own.columns}))
            for i in range(50)
        ]
        assert np.allclose(own(columns), wanted, atol=1e-6)
    (own,) = parse_events(event("log(AU01) + min(1, AU02 > 2)")).values()
    assert np.isnan(own(columns)[7]) and np.isfinite(own(columns)[:7]).any()


def test_asymmetry_is_left_minus_right_over_time():
    rng = np.random.default_rng(13)
    pts = clock("vfr", 20, rng)
    columns = columns_of(len(pts), 13)
    late = pts >= 10_000_000  # half of the time, for any number of samples
    columns["mouthSmileLeft"] = np.where(late, 0.9, 0.5).astype(np.float32)
    columns["mouthSmileRight"] = np.full(len(pts), 0.5, np.float32)
    columns["browDownLeft"] = np.where(late, np.nan, 0.2).astype(np.float32)
    columns["browDownRight"] = np.full(len(pts), 0.3, np.float32)
    columns["AU01"] = np.where(late, 0.2, 0.0).astype(np.float32)  # stands for a column computed from the mesh
    (row,) = derive(pts, np.zeros(len(pts)), columns)[0].to_pylist()
    assert row["asymmetry_mouthSmile"] == pytest.approx(0.2, abs=0.005)
    assert row["asymmetry_browDown"] == pytest.approx(-0.1), "where one is not known, neither counts"
    assert row["asymmetry_mesh_mouth"] == row["asymmetry_mesh_brows"] == pytest.approx(0.1, abs=0.005)


def test_gaze_on_the_camera_is_a_share_of_the_time_that_it_is_known():
    pts = clock("25", 10, None)
    columns = columns_of(len(pts), 14)
    at = pts / 1e6
    columns["gaze_angle"] = np.where(at < 2, np.nan, np.where(at < 4, 0.1, 0.6)).astype(np.float32)
    (row,) = derive(pts, np.zeros(len(pts)), columns)[0].to_pylist()
    assert row["gaze_on_camera"] == pytest.approx(0.25)


def test_a_raised_corner_of_the_mouth_is_measured_in_any_picture():
    rng = np.random.default_rng(12)
    mesh = rng.uniform(0, 100, (1, 478, 3))
    mesh[0, 263, :2], mesh[0, 33, :2] = (80, 20), (20, 20)
    mesh[0, 291, :2], mesh[0, 61, :2] = (65, 70), (35, 76)  # y points down: the left corner is higher
    turned = mesh.copy()
    angle = np.array([[0.6, -0.8], [0.8, 0.6]])
    turned[0, :, :2] = 3 * mesh[0, :, :2] @ angle.T + 50
    both = mesh_differences(np.concatenate([mesh, turned]).astype(np.float32))
    assert np.allclose(both["mouth"], 0.1, atol=1e-5)
    mesh[0, 263] = mesh[0, 33]
    assert np.isnan(mesh_differences(mesh.astype(np.float32))["mouth"][0])


@pytest.mark.parametrize("rate", ["24000/1001", "24", "25", "30000/1001", "30", "50", "60000/1001", "60"])
def test_the_rates_that_the_guide_names_are_enough(rate):
    """Sampling takes whole frames, so that of most videos it takes slightly fewer per second than it is told to."""
    times = [round(n * 1_000_000 / Fraction(rate)) for n in range(int(5 * Fraction(rate)))]
    for fps, has in ((15, lambda samples: can_show_blinks(samples, BlinkConfig())), (10, can_show_moves)):
        sampler = Sampler(FramesPerSecond(fps=fps), Fraction(1, 1_000_000), Unit(0))
        taken = np.array([time for index, time in enumerate(times) if sampler.takes(index, time)])
        samples = lay_out(taken, np.zeros(len(taken), np.int64), 0.5)
        assert has(samples).all(), (fps, samples.faces_per_s)


def can_show_moves(samples):
    return samples.faces_per_s >= MovementConfig().least_faces_per_s
