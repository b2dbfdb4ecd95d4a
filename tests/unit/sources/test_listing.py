import os
import zipfile

import pytest

from featray.config import InputConfig
from featray.errors import ConfigError, StorageError
from featray.extract.plan import open_source
from featray.records import dump, load
from featray.sources.listing import Video, find_video, list_videos


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
        f"file://{tree}/b/back/other: not followed, this link leads back to a folder that it lies in"
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
    with pytest.raises(StorageError, match=r"^https://\[bad/x\.mp4: is no valid URL$"):
        list(list_videos(InputConfig(uris=["https://[bad/x.mp4?sig=hunter2"])))
