import contextlib
import os
import re
import zipfile
from pathlib import Path

import fsspec
import pytest

from featray.config import DecodeConfig, InputConfig
from featray.errors import ConfigError, NotFound, StorageError
from featray.extract.plan import open_source, plan_video
from featray.identity import partition_folder, partition_value
from featray.records import dump, load
from featray.sources.expand import covers
from featray.sources.listing import Video, find_video, list_videos
from featray.sources.passed import PassedOver
from tests.fixtures import s3


@pytest.fixture
def tree(tmp_path):
    for name in ("a/2024/x.mp4", "a/2024/y.MKV", "a/2025/x.mp4", "b/2024/z.mov", "b/2024/notes.txt", "b/2024/.hidden"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def names(root, *uris, **options):
    videos = list_videos(InputConfig(uris=[u.format(root) for u in uris], **options))
    return [video.uri.removeprefix(f"file://{root}/") for video in videos]


def test_a_prefix_takes_what_has_a_videos_suffix_in_order(tree):
    assert names(tree, "{}/") == ["a/2024/x.mp4", "a/2024/y.MKV", "a/2025/x.mp4", "b/2024/z.mov"]
    assert names(tree, "{}/b") == ["b/2024/z.mov"]


def test_a_glob_takes_what_it_says(tree):
    assert names(tree, "{}/**/*.mp4") == ["a/2024/x.mp4", "a/2025/x.mp4"]
    assert names(tree, "{}/*/2024/*.txt") == ["b/2024/notes.txt"]
    assert names(tree, "{}/a/202[45]/x.mp4") == ["a/2024/x.mp4", "a/2025/x.mp4"]


def test_a_video_named_twice_is_listed_once(tree):
    assert names(tree, "{}/a/2024/x.mp4", "{}/a/**/*.mp4") == ["a/2024/x.mp4", "a/2025/x.mp4"]


def test_links_to_folders_elsewhere_are_followed(tree):
    root = tree / "a"
    (root / "site").symlink_to(tree / "b")
    (root / "site" / "one.mp4").symlink_to(tree / "b" / "2024" / "z.mov")
    (root / "lost.mp4").symlink_to(tree / "gone.mp4")
    linked = ["lost.mp4", "site/2024/z.mov", "site/one.mp4"]
    assert names(root, "{}/") == ["2024/x.mp4", "2024/y.MKV", "2025/x.mp4", *linked]
    assert names(root, "{}/site/**/*.mov") == ["site/2024/z.mov"]


def test_links_that_stay_in_a_prefix_name_nothing_new(tree):
    (tree / "latest").symlink_to(tree / "a" / "2025")
    (tree / "a" / "up").symlink_to(tree)
    assert names(tree, "{}/") == ["a/2024/x.mp4", "a/2024/y.MKV", "a/2025/x.mp4", "b/2024/z.mov"]
    assert names(tree, "{}/lat*/*.mp4") == ["latest/x.mp4"]


def test_links_in_circles_end(tree, caplog):
    (tree / "a" / "2024" / "other").symlink_to(tree / "b")
    (tree / "b" / "back").symlink_to(tree / "a" / "2024")
    assert names(tree, "{}/a/2024/") == ["a/2024/other/2024/z.mov", "a/2024/x.mp4", "a/2024/y.MKV"]
    assert names(tree, "{}/b/**/*.mov") == ["b/2024/z.mov"]
    assert caplog.messages == [
        f"file://{tree}/b/back/other: link not followed, it leads back to a folder that contains it"
    ]


def test_a_link_is_as_new_as_what_it_leads_to(tree):
    (tree / "link.mp4").symlink_to(tree / "a" / "2025" / "x.mp4")

    def content_ids():
        return {
            video.content_id
            for uri in ("link.mp4", "link*.mp4")
            for video in list_videos(InputConfig(uris=[f"{tree}/{uri}"]))
        }

    before = content_ids()
    os.utime(tree / "a" / "2025" / "x.mp4", (1e9, 1e9))
    after = content_ids()
    assert len(before) == len(after) == 1
    assert before != after


@pytest.mark.parametrize("uri", ["{}/none.mp4", "{}/*.mp4", "{}/c/"])
def test_what_names_nothing_is_said(tree, uri):
    with pytest.raises(ConfigError, match=r"input\.uris: nothing found at file://"):
        names(tree, uri)


def test_path_fields_become_values(tree):
    config = InputConfig(uris=[f"{tree}/a/2025/x.mp4"], path_fields="{site}/{year}/{name}")
    (video,) = list_videos(config)
    assert video.fields == {"site": "a", "year": "2025"}


def test_the_suffix_of_a_name_can_be_left_out(tree):
    config = InputConfig(uris=[f"{tree}/a/2025/x.mp4"], path_fields="{year}/{clip}.{name}")
    (video,) = list_videos(config)
    assert video.fields == {"year": "2025", "clip": "x"}


def test_paths_that_do_not_fit_give_nulls_and_are_counted(tree, caplog):
    pattern = "{site}/{date}/{who}_{name}"
    (tree / "a" / "2024" / "anna_1.mp4").write_bytes(b"x")
    videos = list(list_videos(InputConfig(uris=[f"{tree}/a/"], path_fields=pattern)))
    fits, *others = sorted(videos, key=lambda video: "anna" not in video.uri)
    assert fits.fields == {"site": "a", "date": "2024", "who": "anna"}
    assert [video.fields for video in others] == [dict.fromkeys(fits.fields)] * 3
    (said,) = caplog.messages
    assert said.startswith(f"3 videos, such as {others[0].uri}: path does not fit") and pattern in said
    assert load(Video, dump(others[0])) == others[0]


def test_content_id_follows_the_bytes_and_their_time(tree):
    def content_id():
        (video,) = list_videos(InputConfig(uris=[f"{tree}/a/2025/x.mp4"]))
        return video.content_id

    before = content_id()
    assert content_id() == before
    os.utime(tree / "a/2025/x.mp4", (1, 1))
    assert content_id() != before


def test_a_video_survives_json(tree):
    (video,) = list_videos(InputConfig(uris=[f"{tree}/a/2025/x.mp4"], path_fields="{year}/{name}"))
    assert load(Video, dump(video)) == video


@pytest.mark.parametrize("uri", ["{}/", "{}/a::b.mp4", "file://{}/a::b.mp4", "{}/list.csv"])
def test_two_colons_in_a_name_are_part_of_the_name(tmp_path, uri):
    (tmp_path / "a").write_bytes(b"another file")
    (tmp_path / "a::b.mp4").write_bytes(b"the video")
    (tmp_path / "list.csv").write_text("uri\na::b.mp4\n")
    (video,) = list_videos(InputConfig(uris=[uri.format(tmp_path)]))
    assert (video.uri, video.problem, video.size_bytes) == (f"file://{tmp_path}/a::b.mp4", None, 9)
    for same in (video, find_video(video.uri, None, InputConfig(uris=["unused"]))):
        with open_source(same, {}) as file:
            assert file.read() == b"the video"


def test_a_chain_of_filesystems_is_still_one(tmp_path, tree):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(tree / "a/2024/x.mp4", "x.mp4")
    (video,) = list_videos(InputConfig(uris=[f"simplecache::file://{tree}/a/2024/x.mp4"]))
    assert video.size_bytes == len("a/2024/x.mp4")
    (video,) = list_videos(InputConfig(uris=[f"zip://x.mp4::file://{tmp_path}/z.zip"]))
    assert video.size_bytes == len("a/2024/x.mp4")


def test_a_name_that_is_not_utf8_is_a_row_and_the_others_go_on(tmp_path):
    for name in (b"a.mp4", b"caf\xe9.mp4", b"caf\xe9.tar", b"z.mp4"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(b"x")
    found = list(list_videos(InputConfig(uris=[f"{tmp_path}/"], path_fields="{name}")))
    names = ["a.mp4", r"caf\xe9.mp4", r"caf\xe9.tar", "z.mp4"]
    assert [video.uri for video in found] == [f"file://{tmp_path}/{name}" for name in names]
    assert [video.problem and video.problem[0] for video in found] == [None, "fetch_failed", "fetch_failed", None]
    assert "its name is not UTF-8" in found[1].problem[1]
    assert all(load(Video, dump(video)) == video for video in found)


def test_a_url_that_is_none_is_said():
    with pytest.raises(StorageError, match=r"^https://\[bad/x\.mp4: is not a valid URL$"):
        list(list_videos(InputConfig(uris=["https://[bad/x.mp4?sig=hunter2"])))


CAMERAS = "x.MOD x.TOD x.f4v x.qt x.divx x.m2v x.MPE x.LRV x.m2t".split()


def test_a_prefix_takes_what_cameras_write_and_counts_the_rest(tmp_path):
    for name in [*CAMERAS, "a.mp4", "b.THM", "c.thm", "d.srt", "LICENSE", "._a.mp4", "e.m\u00fc", "deep/f.srt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    passed = PassedOver()
    found = [video.uri.rsplit("/", 1)[-1] for video in list_videos(InputConfig(uris=[f"{tmp_path}/"]), passed)]
    assert sorted(found) == sorted([*CAMERAS, "a.mp4"])
    assert passed.in_words() == ("7 other files passed over: .srt 2, .THM 1, ._* 1, .thm 1, no suffix 1, others 1")


def test_what_is_passed_over_is_counted_in_bounded_memory():
    passed = PassedOver()
    for i in range(10_000):
        passed.file(f"a/b.{i}")
        passed.file("a/[red]x.[/red]\n")
    assert len(passed.files) <= 101 and passed.files.total() == 20_000
    assert "and 93 more kinds" in passed.in_words()


def test_a_glob_takes_a_videos_suffix_in_either_case(tree):
    (tree / "a" / "2024" / "GOPR1.MP4").write_bytes(b"x")
    (tree / "b" / "2024" / "NOTES.TXT").write_bytes(b"x")
    assert names(tree, "{}/**/*.mp4") == ["a/2024/GOPR1.MP4", "a/2024/x.mp4", "a/2025/x.mp4"]
    assert names(tree, "{}/**/*.mkv") == ["a/2024/y.MKV"]
    assert names(tree, "{}/**/*.txt") == ["b/2024/notes.txt"]
    is_covered = covers(InputConfig(uris=[f"{tree}/**/*.mp4"]))
    assert is_covered(f"file://{tree}/a/2024/GOPR1.MP4") and not is_covered(f"file://{tree}/a/x.mov")


def test_what_macos_leaves_is_passed_over(tmp_path):
    for name in ("IMG_1.MP4", "._IMG_1.MP4"):
        (tmp_path / name).write_bytes(b"x")
    assert names(tmp_path, "{}/") == names(tmp_path, "{}/*.MP4") == names(tmp_path, "{}/*") == ["IMG_1.MP4"]
    assert names(tmp_path, "{}/._*.MP4") == ["._IMG_1.MP4"] == names(tmp_path, "{}/._IMG_1.MP4")


def test_a_pipe_and_a_link_to_nothing_are_rows(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "pipe.mp4")
    (tmp_path / "lost.mp4").symlink_to(tmp_path / "gone")
    (tmp_path / "ok.mp4").write_bytes(b"x")
    (tmp_path / "list.csv").write_text("uri\npipe.mp4\n")
    for uri in (tmp_path, tmp_path / "*.mp4"):
        link, lost, ok, pipe = list_videos(InputConfig(uris=[str(uri)]))
        assert ok.problem is None
        for video in (link, pipe):
            assert video.problem == ("fetch_failed", f"{video.uri}: is a pipe, socket or device, not a file")
        failure = plan_video(lost, DecodeConfig(), {}).failure
        assert failure.message == f"{lost.uri}: does not exist"
    for name in ("pipe.mp4", "list.csv"):
        (video,) = list_videos(InputConfig(uris=[f"{tmp_path}/{name}"]))
        assert "is a pipe, socket or device" in video.problem[1]


def test_a_folder_that_may_not_be_read_is_passed_over_and_named(tmp_path):
    for name in ("a/1.mp4", "lost+found/2.mp4", "z/3.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "lost+found").chmod(0)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    passed = PassedOver()
    with not_root():
        found = [video.uri for video in list_videos(InputConfig(uris=[f"{tmp_path}/"]), passed)]
        with pytest.raises(StorageError, match=r"lost\+found.*access denied"):
            list(list_videos(InputConfig(uris=[f"{tmp_path}/lost+found/"])))
    assert found == [f"file://{tmp_path}/a/1.mp4", f"file://{tmp_path}/z/3.mp4"]
    assert passed.folders == [f"file://{tmp_path}/lost+found/"]
    assert passed.hides(f"file://{tmp_path}/lost+found/2.mp4"), "it is not gone, as far as anyone knows"


@contextlib.contextmanager
def not_root():
    """Run the block as an unprivileged user, because root may read everything."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


ODD = ["a[1].mp4", "a1.mp4", "s*.mp4", "sx.mp4", "q?.mp4", "qx.mp4", "new\nline.mp4", "[raw]/v.mp4", "r/v.mp4"]


@pytest.fixture
def odd(tmp_path):
    for name in ODD:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


@pytest.mark.parametrize("name", ODD)
def test_a_name_that_is_there_is_that_file(odd, name):
    config = InputConfig(uris=[f"{odd}/{name}"], path_fields="{site}/{name}")
    (video,) = list_videos(config)
    assert video.uri == f"file://{odd}/{name}" and None not in video.fields.values()
    again = find_video(video.uri, None, InputConfig(uris=["unused"]))
    for each in (load(Video, dump(video)), again):
        with open_source(each, {}) as file:
            assert file.read() == name.encode()
    assert covers(config)(video.uri)
    (odd / name).unlink()
    with pytest.raises(NotFound):  # and not another file that the name would match as a pattern
        find_video(video.uri, None, InputConfig(uris=["unused"]))


def test_a_folder_whose_name_is_a_pattern_is_that_folder(odd):
    assert names(odd, "{}/[raw]/") == names(odd, "{}/[raw]") == ["[raw]/v.mp4"]
    assert names(odd, "{}/a[1].mp4", "{}/a*.mp4") == ["a[1].mp4", "a1.mp4"]
    (odd / "a[1].mp4").unlink()
    assert names(odd, "{}/a[1].mp4") == ["a1.mp4"], "no such file: then it is a pattern"


LONG = [
    "(" * 90,
    "x" * 250,
    "\u4e2d" * 80,
    "a~0123456789abcdef",
    "__HIVE_DEFAULT_PARTITION__",
    "y" * 190 + "~",
    "%" * 80,
]


def test_long_values_of_path_fields_are_cut_and_stay_apart():
    values = [*LONG, *(f"{value[:-1]}!" for value in LONG)]
    cut = [partition_value("site", value) for value in values]
    assert len(set(cut)) == len(values) == len(set(values))
    assert all(len(partition_folder("site", value).encode()) <= 200 for value in cut)
    for value, short in zip(values, cut, strict=True):
        assert partition_value("site", value) == short, "stable"
        assert value == short or re.search(r"~[0-9a-f]{16}$", short)
        if value != short:
            assert partition_value("site", short) != short, "no other value is taken for a cut one"


@pytest.mark.parametrize("value", ["zurich", "2024-05-06", "a b", "Z\u00fcrich", "a=b", "100%", "x" * 190])
def test_values_in_normal_use_are_what_they_are(value):
    assert partition_value("site", value) == value


def test_a_bucket_that_does_not_exist_is_said():
    with s3.server() as url:
        options = {"key": "k", "secret": "s", "endpoint_url": url}
        fsspec.filesystem("s3", **options).mkdir("there")
        for name, text in (("nobucket", r"nobucket/raw/: its bucket does not exist$"), ("there", r"there/raw/$")):
            config = InputConfig(uris=[f"s3://{name}/raw/"], storage_options=options)
            with pytest.raises(ConfigError, match=f"nothing found at s3://{text}"):
                list(list_videos(config))
