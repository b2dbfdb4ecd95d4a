import os

import pytest

from featray.config import InputConfig
from featray.errors import ConfigError
from featray.sources.listing import Video, list_videos


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


@pytest.mark.parametrize("uri", ["{}/none.mp4", "{}/*.mp4", "{}/c/"])
def test_what_names_nothing_is_said(tree, uri):
    with pytest.raises(ConfigError, match=r"input\.uris: nothing found at file://"):
        names(tree, uri)


def test_path_fields_become_values(tree):
    config = InputConfig(uris=[f"{tree}/a/2025/x.mp4"], path_fields="{site}/{year}/{name}")
    (video,) = list_videos(config)
    assert video.fields == {"site": "a", "year": "2025"}


def test_a_path_that_does_not_fit_is_named(tree):
    with pytest.raises(ConfigError, match=r"x\.mp4 does not fit \{who\}_\{take\}"):
        list(list_videos(InputConfig(uris=[f"{tree}/a/2025/x.mp4"], path_fields="{who}_{take}.mp4")))


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
    assert Video.from_json(video.to_json()) == video
