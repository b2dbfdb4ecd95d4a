"""Pixels that are not square are made square, before the picture is turned, and for each picture on its own."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from featray.config import DecodeConfig
from featray.errors import ErrorCode, VideoError
from featray.faces.crop import crop_squares, cut_chip
from featray.model.outputs import to_columns
from featray.video.decode import DecodeAccount, decode_pyav
from featray.video.frame import Frame
from featray.video.shape import square_size
from featray.video.units import WHOLE_VIDEO, Unit
from tests.fixtures.corpus import Corpus, run_ffmpeg
from tests.fixtures.hdr import write_clip
from tests.fixtures.videos import cut


def frames_of(place: Path, unit: Unit = WHOLE_VIDEO[0], **settings) -> tuple[list[Frame], DecodeAccount]:
    account = DecodeAccount()
    with place.open("rb") as file:
        return list(decode_pyav(file, unit, DecodeConfig(**settings), account)), account


@pytest.mark.parametrize(
    ("stored", "sar", "square"),
    [
        ((720, 576), Fraction(64, 45), (1024, 576)),
        ((720, 576), Fraction(16, 15), (768, 576)),
        ((720, 480), Fraction(8, 9), (720, 540)),
        ((720, 480), Fraction(32, 27), (853, 480)),
        ((1440, 1080), Fraction(4, 3), (1920, 1080)),
        ((640, 360), Fraction(1), (640, 360)),
        ((640, 360), Fraction(1, 5000), (640, 360)),
        ((640, 360), Fraction(65535), (640, 360)),
    ],
)
def test_sizes(stored, sar, square):
    """Sizes of DV, NTSC and HDV; a picture never gets smaller, and aspect ratios that no camera has are ignored."""
    assert square_size(*stored, sar) == square


@pytest.mark.parametrize("name", ["sar.mp4", "sar.mpg"])
def test_frames_are_stretched_or_left(corpus: Corpus, name: str):
    stored, as_stored = frames_of(corpus.path(name), square_pixels="off")
    square, account = frames_of(corpus.path(name))
    assert (as_stored.squared, account.squared) == (False, True)
    assert as_stored.sar == account.sar != "1:1"
    width = round(stored[0].width_px * Fraction(account.sar.replace(":", "/")))
    assert (account.width_px, account.height_px) == (width, stored[0].height_px)
    assert {frame.rgb().shape for frame in square} == {(account.height_px, width, 3)}
    assert square[0].shrunk_bgr(88).shape[1] == 88 and square[0].scaled_rgb(0.5).shape[1] == round(width / 2)
    # Shrunk back, it is the original picture.
    back = np.asarray(
        [np.interp(np.arange(160), np.linspace(-0.5, 159.5, width), row) for row in square[0].rgb()[..., 1]]
    )
    if name == "sar.mp4":
        assert np.abs(back - stored[0].rgb()[..., 1]).mean() < 6


@pytest.mark.parametrize(("turn", "size"), [(90, (120, 213)), (180, (213, 120)), (270, (120, 213))])
def test_pixels_are_made_square_before_the_picture_is_turned(corpus: Corpus, turn, size, tmp_path):
    """A phone's anamorphic lens stretches the stored picture, however the phone is held."""
    upright = frames_of(corpus.path("sar.mp4"))[0][0].rgb()
    place = tmp_path / "turned.mp4"
    run_ffmpeg("-display_rotation", str(turn), "-i", str(corpus.path("sar.mp4")), "-c", "copy", str(place))
    frames, account = frames_of(place)
    assert (account.width_px, account.height_px) == size == (frames[0].width_px, frames[0].height_px)
    assert account.rotation_degrees == turn and account.squared
    np.testing.assert_array_equal(frames[0].rgb(), np.rot90(upright, turn // 90))


@pytest.fixture(scope="module")
def switched(tmp_path_factory) -> Path:
    """Return a broadcast that goes from 4:3 to 16:9 and back, at the same size in pixels."""
    folder = tmp_path_factory.mktemp("switched")
    whole = b""
    for number, sar in enumerate(("12/11", "16/11", "12/11")):
        part = folder / f"{number}.ts"
        begin = ("-output_ts_offset", str(1.2 * number))
        picture = ("-f", "lavfi", "-i", "testsrc2=size=176x144:rate=25:duration=1", "-vf", f"setsar={sar}")
        run_ffmpeg(*picture, "-c:v", "mpeg2video", "-bf", "2", "-g", "12", "-b:v", "1M", *begin, str(part))
        whole += part.read_bytes()
    (folder / "all.ts").write_bytes(whole)
    return folder / "all.ts"


def test_a_change_in_mid_stream_is_followed(switched):
    frames, account = frames_of(switched)
    assert [frame.width_px for frame in frames] == [192] * 25 + [256] * 25 + [192] * 25
    assert {frame.rgb().shape[1] for frame in frames} == {192, 256}
    assert (account.sar, account.width_px, account.squared) == ("12:11", 192, True)
    assert {frame.width_px for frame in frames_of(switched, square_pixels="off")[0]} == {176}


def test_every_unit_sees_the_same_shapes(switched):
    """True wherever decoding begins; the header describes only the first seconds."""
    units, _ = cut(switched, "all", 16)
    assert len(units) > 3
    widths = [frame.width_px for unit in units for frame in frames_of(switched, unit)[0]]
    assert widths == [192] * 25 + [256] * 25 + [192] * 25


def test_a_stretched_frame_may_be_too_large(corpus: Corpus):
    with pytest.raises(VideoError, match="frames of 213x120 px exceed") as caught:
        frames_of(corpus.path("sar.mp4"), max_pixels=25_000)
    assert caught.value.code == ErrorCode.TOO_LARGE
    assert frames_of(corpus.path("sar.mp4"), max_pixels=25_000, square_pixels="off")[1].frames_decoded == 50


def test_anamorphic_and_square_video_give_one_mesh(face_clip, detector, engine_of, atto, tmp_path, report):
    """Compare 720x576 at 16:9 with 1024x576: detection, chip and network.

    The weights are synthetic: their mesh is eleven times as wide as the crop, and moves by a fifth of its side if that
    moves by one px. The comparison is therefore the mean distance of vertices, relative to the mesh's own extent. It
    shows that crops are the same and chips similar, not that a mesh lies on the face.
    """
    with av.open(str(face_clip)) as container:
        picture = next(container.decode(video=0))
    wide, narrow = (
        picture.reformat(width=width, height=576, format="rgb24", interpolation="BICUBIC").to_ndarray()
        for width in (1024, 720)
    )
    square = write_clip(tmp_path / "square.mp4", [wide])
    dv = write_clip(tmp_path / "dv.mp4", [narrow], sar=Fraction(64, 45))
    engine = engine_of("atto", "torch")

    def mesh_and_crop(place, **settings):
        (frame,), _ = frames_of(place, **settings)
        [crop] = crop_squares(detector([frame])[0].box_xyxy)
        columns = to_columns(engine(cut_chip(frame.rgb(), crop)[None]), crop[None], atto.config)
        return columns["mesh_xyz"].reshape(478, 3)[:, :2], crop

    expected, crop = mesh_and_crop(square)
    extent = np.linalg.norm(np.ptp(expected, axis=0))

    def distance(mesh):
        return np.linalg.norm(mesh - expected, axis=1).mean() / extent

    mesh, crop_of_dv = mesh_and_crop(dv)
    assert np.abs(crop_of_dv - crop).max() < 0.005 * crop[2]
    assert distance(mesh) < 0.01
    as_stored = distance(mesh_and_crop(dv, square_pixels="off")[0] * [1024 / 720, 1])
    assert as_stored > 0.03
    report(f"anamorphic: mesh {distance(mesh):.2%} from that of square pixels, {as_stored:.1%} as stored")
