"""`decode.hwaccel: cuda`, as far as it can be tested without a GPU: how PyAV is built, and the messages to users."""

import av
import numpy as np
import pytest

from featray.config import DecodeConfig, parse_config
from featray.errors import ConfigError, ModelError
from featray.run.job import describe
from featray.video import nvdec
from featray.video.decode import DecodeAccount, decode_pyav
from featray.video.frame import Frame
from featray.video.nvdec import as_from_cpu, check_nvdec, nvdec_is_built_in
from featray.video.units import WHOLE_VIDEO

pytestmark = pytest.mark.skipif(not nvdec_is_built_in(), reason="this PyAV is built without NVDEC")


def has_nvdec():
    try:
        check_nvdec()
    except ModelError:
        return False
    return True


no_gpu = pytest.mark.skipif(nvdec_is_built_in() and has_nvdec(), reason="there is a GPU here")


@no_gpu
def test_without_a_gpu_one_line_says_so(face_clip):
    """The check at a worker's start and the decoding of a video raise this error; the video is not called invalid."""
    line = r"^decode.hwaccel: cuda, but FFmpeg cannot open a CUDA device on .*set decode.hwaccel: none$"
    with pytest.raises(ModelError, match=line):
        check_nvdec()
    with face_clip.open("rb") as file, pytest.raises(ModelError, match=line):
        next(decode_pyav(file, WHOLE_VIDEO[0], DecodeConfig(hwaccel="cuda"), DecodeAccount()))


def test_a_pyav_without_nvdec_is_told_before_the_run(monkeypatch):
    monkeypatch.setattr(nvdec, "hwdevices_available", lambda: ["vaapi"])
    assert not nvdec_is_built_in()
    data = {"dataset": "d", "input": {"uris": ["a"]}, "output": {"uri": "o"}, "decode": {"hwaccel": "cuda"}}
    with pytest.raises(ConfigError, match=r"PyAV .* is built without NVDEC; set decode.hwaccel: none"):
        describe(parse_config(data))


@pytest.mark.parametrize(("layout", "nvdecs", "levels"), [("yuv420p", "nv12", 256), ("yuv420p10le", "p010le", 1024)])
@pytest.mark.parametrize("colorspace", [2, 5, 9])
def test_pictures_as_nvdec_lays_them_out_become_the_same_pixels(layout, nvdecs, levels, colorspace):
    """swscale makes the layouts here, so no GPU is needed; `make gpu-check` shows that NVDEC's planes are the same."""
    values = np.random.default_rng(0).integers(0, levels, (270 * 3 // 2, 482))
    picture = av.VideoFrame.from_ndarray(values.astype(np.uint8 if levels == 256 else np.uint16), format=layout)
    picture.colorspace, picture.color_range, picture.pts = colorspace, 1, 77
    found = as_from_cpu(picture.reformat(format=nvdecs, threads=1))
    assert (found.format.name, found.pts, found.color_range) == (layout, 77, 1)
    np.testing.assert_array_equal(found.to_ndarray(), picture.to_ndarray())
    a, b = (Frame.of(one, index=0, pts_us=0) for one in (picture, found))
    np.testing.assert_array_equal(a.rgb(), b.rgb())
    np.testing.assert_array_equal(a.shrunk_bgr(160), b.shrunk_bgr(160))
    assert as_from_cpu(picture) is picture
