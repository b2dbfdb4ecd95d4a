"""Unusual pictures are decoded correctly; a bad one costs only its own frame, and the error gives the reason."""

import numpy as np
import pytest

from featray.config import DecodeConfig
from featray.errors import ErrorCode
from featray.video.decode import DecodeAccount
from featray.video.stills import decode_stills
from featray.video.units import Picture, Unit
from tests.fixtures.sequences import bad_pictures, odd_pictures, scene

ODD, BAD = odd_pictures(), bad_pictures()


def decoded(files, **settings):
    """Return the frames and the account of files given by name, in their order."""
    pictures = tuple(Picture(i, name, len(data)) for i, (name, data) in enumerate(files.items()))
    account = DecodeAccount()
    read = lambda picture: files[picture.name]  # noqa: E731
    frames = list(decode_stills(read, Unit(0, pictures=pictures), DecodeConfig(**settings), account))
    return frames, account


def test_there_are_thirty_of_each():
    assert len(ODD) >= 30 and len(BAD) >= 30


@pytest.mark.parametrize("name", ODD)
def test_odd_pictures_are_right(name):
    data, expected, most = ODD[name]
    (frame,), account = decoded({name: data})
    assert account.errors == []
    image = frame.rgb()
    assert image.shape == expected.shape == (frame.height_px, frame.width_px, 3)
    assert np.abs(image.astype(int) - expected).mean() <= most


def test_bad_pictures_cost_a_frame_each():
    good = ODD["plain.png"]
    files = {name: data for bad in BAD for name, data in ((bad, BAD[bad]), (f"{bad} ok.png", good[0]))}
    for start in range(0, len(files), 20):
        part = dict(list(files.items())[start : start + 20])
        frames, account = decoded(part)
        assert [frame.name for frame in frames] == list(part)
        missing = [frame.name for frame in frames if frame.is_missing]
        assert missing == [name for name in part if name in BAD]
        assert [message.partition(":")[0] for _, message in account.errors] == missing
        assert account.frames_decoded == len(part) - len(missing)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("bomb.png", ErrorCode.TOO_LARGE),
        ("huge.jpg", ErrorCode.TOO_LARGE),
        ("half.jpg", ErrorCode.DECODE_FAILED),
        ("noise.png", ErrorCode.NOT_A_VIDEO),
        ("empty.webp", ErrorCode.NOT_A_VIDEO),
        ("a gif.png", ErrorCode.NOT_A_VIDEO),
        ("floats.tif", ErrorCode.UNSUPPORTED_CODEC),
    ],
)
def test_bad_pictures_say_what_is_wrong(name, code):
    _, account = decoded({name: BAD[name]})
    assert [found for found, _ in account.errors] == [code]


def test_only_some_are_named():
    _, account = decoded({f"{i}.png": b"" for i in range(23)})
    assert len(account.errors) == 21
    assert account.errors[-1][1] == "3 more pictures cannot be read"


def test_pixels_are_limited():
    _, account = decoded({"a.png": ODD["plain.png"][0]}, max_pixels=96 * 64 - 1)
    assert account.errors == [(ErrorCode.TOO_LARGE, "a.png: frames of 96x64 px exceed decode.max_pixels (6143)")]


def test_the_first_picture_says_how_the_sequence_looks():
    frames, account = decoded({"bad.png": b"", "turned.jpg": ODD["turned 6.jpg"][0], "a.png": ODD["plain.png"][0]})
    assert (account.width_px, account.height_px, account.rotation_degrees, account.mirrored) == (96, 64, 270, False)
    assert frames[1].rgb().shape == (64, 96, 3)
    assert np.array_equal(frames[2].rgb(), np.asarray(scene()))
