"""HDR becomes SDR: checked with known levels, known colours, and the SDR encoding of the same clip."""

from pathlib import Path

import av
import numpy as np
import pytest

from featray.config import DecodeConfig, parse_config
from featray.faces.overlap import iou_matrix
from featray.video.decode import DecodeAccount, decode_pyav
from featray.video.frame import Frame
from featray.video.tone import ToneMap, transfer_name
from featray.video.units import WHOLE_VIDEO
from tests.fixtures.hdr import BT709, BT2020, HLG, PQ, as_hdr, write_clip

HDR = {"arib-std-b67": HLG, "smpte2084": PQ}
LUMA = np.asarray([0.2126, 0.7152, 0.0722])


def frames_of(place: Path, **settings) -> tuple[list[Frame], DecodeAccount]:
    account = DecodeAccount()
    with place.open("rb") as file:
        return list(decode_pyav(file, WHOLE_VIDEO[0], DecodeConfig(**settings), account)), account


@pytest.fixture(scope="module")
def pictures(face_clip) -> list:
    with av.open(str(face_clip)) as container:
        return [frame.to_ndarray(format="rgb24") for _, frame in zip(range(4), container.decode(video=0), strict=False)]


@pytest.fixture(scope="module")
def encoded(pictures, tmp_path_factory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("hdr")
    return {code: write_clip(folder / f"{code}.mp4", pictures, transfer=code) for code in (BT709, HLG, PQ)}


@pytest.mark.parametrize(("transfer", "grey_card", "white"), [("arib-std-b67", 0.38, 0.75), ("smpte2084", 0.38, 0.58)])
def test_reference_levels_of_bt2408(transfer, grey_card, white):
    """Table 1: 26 and 203 cd/m². A grey card is at 42 % of SDR; white leaves room for brighter levels."""
    levels = np.rint(4095 * np.asarray([0, grey_card, white, 1])).astype(np.uint16)
    black, grey, paper, peak = ToneMap(transfer, BT2020)(np.repeat(levels[:, None], 3, 1))[:, 0] / 255
    assert (black, peak) == (0, 1)
    assert grey == pytest.approx(0.425, abs=0.01)
    assert paper == pytest.approx(0.90, abs=0.01)


@pytest.mark.parametrize("transfer", HDR)
def test_grey_stays_grey_and_brighter_stays_brighter(transfer):
    ramp = np.repeat(np.arange(4096, dtype=np.uint16)[:, None], 3, 1)
    mapped = ToneMap(transfer, BT2020)(ramp).astype(int)
    assert np.ptp(mapped, axis=1).max() <= 1
    assert (np.diff(mapped[:, 1]) >= 0).all()
    # Coded values alone would give 255 * code / 4095, as if nothing had been mapped.
    assert np.abs(mapped[:, 1] - ramp[:, 1] * 255 / 4095).max() > 40


@pytest.mark.parametrize("transfer", HDR)
def test_colours_come_back(transfer):
    """Up to 45 % of white's light, 182 of 255, colours do not change; near black, a BT.2020 channel has few codes."""
    colours = np.random.default_rng(5).integers(20, 182, (500, 3)).astype(np.uint8)
    mapped = ToneMap(transfer, BT2020)((as_hdr(colours, HDR[transfer]) >> 4).astype(np.uint16))
    assert np.abs(mapped.astype(int) - colours).max() <= 2


def test_primaries_are_minded():
    red = np.asarray([[2000, 0, 0]], np.uint16)
    of_709, of_p3, of_2020 = (ToneMap("smpte2084", code)(red)[0, 0] for code in (1, 12, 9))
    assert of_709 < of_p3 < of_2020
    assert ToneMap("smpte2084", 2)(red)[0, 0] == of_2020, "HDR that does not say has BT.2020's"


def test_names_are_those_of_ffmpeg():
    names = {1: "bt709", 2: "unspecified", 13: "iec61966-2-1", 14: "bt2020-10", 16: "smpte2084", 18: "arib-std-b67"}
    assert {code: transfer_name(code) for code in names} == names
    assert transfer_name(200) == "reserved"


def luma(frame: Frame) -> np.ndarray:
    return frame.rgb() @ LUMA


def test_one_clip_in_three_transfers_looks_alike(encoded, detector, report):
    """Compares boxes, mean luma and contrast; `off` shows that the last two can fail."""
    reference, account = frames_of(encoded[BT709])
    assert (account.transfer, account.tone_mapped) == ("bt709", False)
    expected, [box] = luma(reference[0]), detector(reference[:1])[0].box_xyxy
    for name, code in HDR.items():
        mapped, account = frames_of(encoded[code])
        assert (account.transfer, account.tone_mapped) == (name, True)
        found = luma(mapped[0])
        assert found.mean() == pytest.approx(expected.mean(), rel=0.1)
        assert found.std() == pytest.approx(expected.std(), rel=0.1)
        [again] = detector(mapped[:1])[0].box_xyxy
        overlap = iou_matrix(box[None], again[None])[0, 0]
        assert overlap > 0.9
        as_coded, account = frames_of(encoded[code], tone_map="off")
        assert (account.transfer, account.tone_mapped) == (name, False)
        dull = luma(as_coded[0])
        assert dull.std() < 0.9 * expected.std()
        report(
            f"{name}: IoU {overlap:.3f}, mean luma {found.mean() / expected.mean():.3f} of SDR's, contrast "
            f"{found.std() / expected.std():.3f}; off: {dull.mean() / expected.mean():.3f}, "
            f"{dull.std() / expected.std():.3f}"
        )


@pytest.mark.parametrize("code", HDR.values())
def test_frames_are_the_same_whatever_is_asked_of_them(encoded, code):
    """The whole frame, a part of it, a small one, and one with blue first."""
    (frame, *_), _ = frames_of(encoded[code])
    whole = frame.rgb()
    assert (whole.dtype, whole.shape) == (np.uint8, (360, 640, 3))
    np.testing.assert_array_equal(frame.to_sdr(frame.coded_rgb()[50:200, 100:300]), whole[50:200, 100:300])
    np.testing.assert_array_equal(frame.shrunk_bgr(640)[..., ::-1], whole)
    small = frame.shrunk_bgr(320)[..., ::-1].astype(float)
    halved = whole.reshape(180, 2, 320, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - halved).mean() < 2 < 20 < np.abs(small[..., ::-1] - halved).mean() * 4


def test_hdr_without_a_matrix_has_that_of_bt2020(encoded):
    with av.open(str(encoded[HLG])) as container:
        picture = next(container.decode(video=0))
    tagged = Frame.of(picture, index=0, pts_us=0, tone_map=ToneMap.of(picture)).rgb()
    picture.colorspace = 2
    untagged = Frame.of(picture, index=0, pts_us=0, tone_map=ToneMap.of(picture)).rgb()
    np.testing.assert_array_equal(tagged, untagged)


def test_what_is_not_hdr_is_left_alone(encoded):
    """SDR frames are not even copied, so they cost nothing."""
    (frame, *_), _ = frames_of(encoded[BT709])
    coded = frame.coded_rgb()
    assert coded.dtype == np.uint8 and frame.to_sdr(coded) is coded


def test_off_may_be_written_as_yaml_reads_it():
    base = {"dataset": "d", "input": {"uris": ["a"]}, "output": {"uri": "o"}}
    decode = parse_config({**base, "decode": {"tone_map": False, "square_pixels": "off"}}).decode
    assert (decode.tone_map, decode.square_pixels) == ("off", "off")


def test_hdr_whose_container_alone_says_so(pictures, tmp_path):
    """FFV1's stream does not store the transfer."""
    place = write_clip(tmp_path / "pq.mkv", pictures[:1], transfer=PQ, codec="ffv1")
    (frame,), account = frames_of(place)
    assert account.transfer == "smpte2084"
    assert luma(frame).mean() == pytest.approx((pictures[0] @ LUMA).mean(), rel=0.1)
