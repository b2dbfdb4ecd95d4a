"""The pictures of a sequence, their order, and the conditions under which pictures are listed."""

import csv
import json
import os

import pytest

from featray.config import DecodeConfig, FramesPerSecond, InputConfig, parse_config
from featray.errors import ConfigError, ErrorCode
from featray.extract.plan import VideoPlan, plan_video
from featray.records import dump, load
from featray.sources.expand import covers
from featray.sources.listing import find_video, list_videos
from featray.sources.passed import PassedOver
from featray.sources.sequences import Sequence, list_stills, natural_key
from featray.store.location import locate
from tests.fixtures.sequences import write_tar


def write(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def inputs(uri, **settings):
    return InputConfig(uris=[str(uri)], **{"sequence_fps": 25, **settings})


def listed(uri, **settings):
    """Return the names of what is listed, and what was passed over."""
    passed = PassedOver()
    found = list(list_videos(inputs(uri, **settings), passed))
    return [video.member or video.uri.removeprefix("file://") for video in found], dict(passed.files)


def test_natural_order():
    names = ["10.png", "2.png", "02.png", "a10b2.png", "a10b10.png", "a2.png", "b.png", "1.png", f"{'9' * 5000}.png"]
    ordered = ["1.png", "02.png", "2.png", "10.png", f"{'9' * 5000}.png", "a2.png", "a10b2.png", "a10b10.png", "b.png"]
    assert sorted(names, key=natural_key) == ordered


def test_auto_takes_pictures_where_there_is_no_video(tmp_path):
    write(tmp_path, "p/1.png", "p/2.JPG", "p/._2.JPG", "p/notes.md", "p/deep/3.webp", "q/4.tif", "top.bmp")
    found, passed = listed(f"{tmp_path}/")
    assert found == [f"{tmp_path}/{name}" for name in ("p/", "p/deep/", "q/", "")]
    assert passed == {"._*": 1, ".md": 1}
    write(tmp_path, "q/a.mp4")
    assert listed(f"{tmp_path}/") == (
        [f"{tmp_path}/q/a.mp4"],
        {"._*": 1, ".md": 1, ".png": 1, ".JPG": 1, ".webp": 1, ".tif": 1, ".bmp": 1},
    )
    assert listed(f"{tmp_path}/", kind="videos")[0] == [f"{tmp_path}/q/a.mp4"]
    found, passed = listed(f"{tmp_path}/", kind="sequences")
    assert len(found) == 4 and passed[".mp4"] == 1


def test_videos_alone_find_no_picture(tmp_path):
    write(tmp_path, "1.png")
    with pytest.raises(ConfigError, match="nothing found"):
        listed(tmp_path, kind="videos")
    write(tmp_path / "v", "a.mp4")
    with pytest.raises(ConfigError, match="no picture found"):
        listed(tmp_path / "v", kind="sequences")


def test_a_tar_of_pictures_alone_is_a_sequence(tmp_path):
    write_tar(tmp_path / "pictures.tar", [("10.png", b"a"), ("2.png", b"bc"), ("2.json", b"{}")])
    write_tar(tmp_path / "both.tar", [("1.jpg", b"a"), ("1.mp4", b"b"), ("1.txt", b"c")])
    write_tar(tmp_path / "neither.tar", [("1.txt", b"a")])
    (tmp_path / "cut.tar").write_bytes((tmp_path / "pictures.tar").read_bytes()[:1500])
    assert listed(tmp_path)[0] == ["1.mp4", f"{tmp_path}/cut.tar", f"{tmp_path}/pictures.tar"]
    assert listed(tmp_path, kind="videos")[0] == ["1.mp4", "entry 0"]
    stills, problem = list_stills(locate(str(tmp_path / "pictures.tar")), Sequence("tar"))
    assert [(still.name, still.size_bytes) for still in stills] == [("2.png", 2), ("10.png", 1)]
    assert problem is None
    stills, problem = list_stills(locate(str(tmp_path / "cut.tar")), Sequence("tar"))
    assert [still.name for still in stills] == ["10.png"] and "damaged" in problem


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("*/*.png", {"a/*.png": ["1.PNG", "2.png"], "b/*.png": ["1.png"]}),
        ("a/f*.jpg", {"a/f*.jpg": ["f.jpg"]}),
        ("a/*", {"a/": ["1.PNG", "2.png", "f.jpg", "x[1].jpg"]}),
        ("b/1.png", {"b/1.png": ["1.png"]}),
        ("a/x[1].jpg", {"a/x[1].jpg": ["x[1].jpg"]}),
    ],
)
def test_globs_choose_among_pictures(tmp_path, glob, expected):
    write(tmp_path, "a/1.PNG", "a/2.png", "a/f.jpg", "a/x[1].jpg", "b/1.png")
    found = {video.uri.removeprefix(f"file://{tmp_path}/"): video for video in list_videos(inputs(tmp_path / glob))}
    assert list(found) == list(expected)
    for name, video in found.items():
        stills, _ = list_stills(locate(video.address), video.sequence)
        assert [still.name for still in stills] == expected[name]
        assert find_video(video.uri, None, inputs(tmp_path / glob)) == video
        assert covers(inputs(tmp_path / glob))(video.uri) or name == "a/"


def test_content_ids_are_of_the_listing(tmp_path):
    write(tmp_path, "1.png", "2.png", "notes.txt")
    known = os.stat(tmp_path / "2.png").st_mtime_ns

    def content():
        (video,) = list_videos(inputs(tmp_path))
        return video.content_id

    before = content()
    write(tmp_path, "notes.txt", "more.txt")
    assert content() == before
    os.utime(tmp_path / "2.png", ns=(known, known + 10**9))
    changed = content()
    assert changed != before
    os.utime(tmp_path / "2.png", ns=(known, known))
    assert content() == before
    (tmp_path / "2.png").rename(tmp_path / "3.png")
    assert content() not in (before, changed)


def test_pictures_without_times_have_to_be_unrelated(tmp_path):
    write(tmp_path, "1.png")
    (video,) = list_videos(inputs(tmp_path, sequence_fps=None))
    code, text = video.problem
    assert code == ErrorCode.UNSUPPORTED_CONTAINER
    assert "set input.sequence_fps, or input.related: false" in text
    (video,) = list_videos(inputs(tmp_path, sequence_fps=None, related=False))
    assert video.problem is None and video.sequence == Sequence("folder", fps=None, related=False)


def test_a_manifest_names_sequences_and_their_rates(tmp_path):
    write(tmp_path, "a/1.png", "b/1.png", "c/1.png")
    write_tar(tmp_path / "d.tar", [("1.png", b"x")])
    rows = [("a", "10"), ("b/", ""), ("c", "fast"), ("d.tar", "12.5"), ("b/1.png", "1")]
    with (tmp_path / "list.csv").open("w") as file:
        csv.writer(file).writerows([("path", "sequence_fps"), *rows])
    config = inputs(tmp_path / "list.csv")
    found = list(list_videos(config))
    assert [video.sequence and video.sequence.fps for video in found] == [10, 25, 25, 12.5, 1]
    assert [video.problem[0] if video.problem else None for video in found] == [
        None,
        None,
        "bad_manifest_row",
        *2 * [None],
    ]
    assert "'fast'" in found[2].problem[1]
    ids = {video.content_id.partition("@")[2] for video in found}
    assert ids == {"10", "12.5", "1", ""}
    for video in (found[0], found[1], found[3], found[4]):
        assert find_video(video.uri, None, config, video.extra) == video


TIMES = [0, 40_000, 1_000_000, 1_040_000]


def test_a_manifest_gives_the_time_of_each_picture(tmp_path):
    write(tmp_path, *(f"{folder}/{n}.png" for folder in "abc" for n in (1, 2, 3, 10)))
    rows = [{"path": "a", "pts_us": TIMES}, {"path": "b", "pts_us": str(TIMES)}, {"path": "c/1.png", "pts_us": 7}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = inputs(tmp_path / "list.jsonl", sequence_fps=None)
    found = list(list_videos(config))
    assert [(video.problem, video.sequence.timed) for video in found] == [(None, True)] * 3
    assert found[0].content_id.partition("@")[2] == found[1].content_id.partition("@")[2]
    for video, times in zip(found, (TIMES, TIMES, [7]), strict=True):
        plan = plan_video(video, DecodeConfig(), {})
        assert [picture.pts_us for unit in plan.units for picture in unit.pictures] == times
        assert (plan.header.time_base, plan.header.duration_us) == ("1/1000000", times[-1] - times[0])
        assert find_video(video.uri, None, config, video.extra) == video
    plan = plan_video(found[0], DecodeConfig(sample=FramesPerSecond(fps=2)), {})
    assert [picture.name for unit in plan.units for picture in unit.pictures] == ["1.png", "3.png"]
    rows[0]["pts_us"] = [*TIMES[:-1], TIMES[-1] + 1]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert next(list_videos(config)).content_id != found[0].content_id


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ("0, 40000, 40000", "has 40000 after 40000"),
        ("0 0.04 0.08", "contains '0.04'"),
        ([0, 1.5, 2], "contains '1.5'"),
        ([0, True, 2], "contains 'True'"),
        ([0, None, 2], "contains 'None'"),
        ({"1.png": 0}, "contains"),
        ([0, 1e300, 2], "contains '1e+300'"),
        ([0, 1, 2], "has 3 times in pts_us for 4 pictures"),
    ],
)
def test_times_that_cannot_be(tmp_path, times, message):
    write(tmp_path, *(f"a/{n}.png" for n in range(4)))
    (tmp_path / "list.jsonl").write_text(json.dumps({"path": "a", "pts_us": times}))
    (video,) = list_videos(inputs(tmp_path / "list.jsonl"))
    failure = plan_video(video, DecodeConfig(), {}).failure
    assert failure.code == ErrorCode.BAD_MANIFEST_ROW and message in failure.message


def test_path_fields_are_of_the_folder(tmp_path):
    write(tmp_path, "zurich/s1/1.png")
    (video,) = list_videos(inputs(tmp_path, path_fields="{site}/{name}"))
    assert video.fields == {"site": "zurich"}


def test_what_makes_no_sense_is_refused():
    data = {"dataset": "d", "output": {"uri": "out"}, "input": {"uris": ["x"], "related": False}}
    with pytest.raises(ConfigError, match=r"detect\.every must be 1 with input\.related false"):
        parse_config({**data, "detect": {"every": 2}})
    data["input"] = {"uris": ["x"], "kind": "sequences", "sequence_fps": 5}
    with pytest.raises(ConfigError, match=r"decode\.backend must be pyav"):
        parse_config({**data, "decode": {"backend": "decord"}})


def test_a_link_to_a_folder_of_pictures_is_followed(tmp_path):
    write(tmp_path / "far", "1.png")
    (tmp_path / "in").mkdir()
    os.symlink(tmp_path / "far", tmp_path / "in" / "link")
    os.symlink(tmp_path / "far" / "1.png", tmp_path / "in" / "2.png")
    for video in list_videos(inputs(tmp_path / "in")):
        assert find_video(video.uri, None, inputs(tmp_path / "in")).content_id == video.content_id


def test_a_manifest_row_of_a_folder_without_pictures_is_bad(tmp_path):
    write(tmp_path, "a/notes.txt", "list.csv")
    (tmp_path / "list.csv").write_text("path\na\n")
    (video,) = list_videos(inputs(tmp_path / "list.csv"))
    assert video.problem[0] == ErrorCode.BAD_MANIFEST_ROW and "or a folder with pictures" in video.problem[1]


@pytest.mark.parametrize("rate", [10**400, -(10**400), 1e-300, [1], "1e999"])
def test_a_rate_that_no_sequence_has_is_told(tmp_path, rate):
    write(tmp_path, "a/1.png", "a/2.png")
    (tmp_path / "list.jsonl").write_text(json.dumps({"path": "a", "sequence_fps": rate}))
    (video,) = list_videos(inputs(tmp_path / "list.jsonl"))
    assert video.problem[0] == "bad_manifest_row"


@pytest.mark.parametrize(
    ("fps", "time_base"),
    [
        (29.97, "100/2997"),
        (30000 / 1001, "1001/30000"),
        (24000 / 1001, "1001/24000"),
        (1 / 3, "3/1"),
        (1e-6, "1000000/1"),
    ],
)
def test_a_rate_with_many_digits_can_be_stored(tmp_path, fps, time_base):
    write(tmp_path, "a/1.png", "a/2.png")
    (video,) = list_videos(inputs(tmp_path / "a/", sequence_fps=fps))
    plan = load(VideoPlan, dump(plan_video(video, DecodeConfig(), {})))
    assert plan.header.time_base == time_base
