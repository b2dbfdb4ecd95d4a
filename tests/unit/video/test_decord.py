"""decord gives the same frames as PyAV, or refuses the file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from featray.config import DecodeConfig, FramesPerSecond
from featray.errors import ConfigError, ErrorCode, VideoError
from featray.video.decode import DecodeAccount, decode_pyav
from featray.video.decoders import open_decoder
from featray.video.units import WHOLE_VIDEO
from tests.fixtures.corpus import GOOD, Corpus
from tests.fixtures.hdr import HLG, write_clip
from tests.fixtures.videos import Decoded, cut

pytestmark = pytest.mark.slow

ALWAYS_REFUSED = {
    *("open_gop.ts", "stream.ts", "wrap.ts", "resized.ts", "restarted.ts", "mpeg1.mpg", "open_gop.mpg"),
    *("edit_list.mp4", "edit_list_end.mp4", "hflip.mp4", "vflip.mp4", "rotate90_hflip.mp4"),
    *("mpeg4_bframes.avi", "h264_bframes.avi", "theora.ogv", "live.webm", "streamed.mkv"),
}
"""Variants that both distributions of decord refuse."""

MAY_BE_REFUSED = ALWAYS_REFUSED | {
    *("open_gop_start.ts", "intra_refresh.ts", "interlaced.ts", "m2ts.m2ts", "hevc_10bit.ts", "sar.mpg"),
    *("rotate270_vflip.mov", "rotate90.mkv", "vfr.mkv", "packed.avi", "drops.avi", "streamed.asf"),
    *("av1.mp4", "av1.webm", "av1_altref.mkv"),
}

needs_decord = pytest.mark.skipif(find_spec("decord") is None, reason="decord is an extra: pip install featray[decord]")


def test_a_missing_decord_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)  # Python does the same for a module that cannot be imported
    with pytest.raises(ConfigError, match=r"pip install featray\[decord\]"):
        open_decoder("decord")


@needs_decord
def test_frames_are_right_or_refused(corpus: Corpus, decode_whole: Callable[[Path], Decoded]) -> None:
    decode = open_decoder("decord")
    refused = set()
    for name in GOOD:
        path = corpus.path(name)
        account = DecodeAccount()
        with path.open("rb") as file, path.open("rb") as other:
            given = decode(file, WHOLE_VIDEO[0], DecodeConfig(), account)
            expected = decode_pyav(other, WHOLE_VIDEO[0], DecodeConfig(), DecodeAccount())
            try:
                for frame, true in zip(given, expected, strict=True):
                    assert (frame.index, frame.pts_us) == (true.index, true.pts_us), name
                    assert np.abs(frame.rgb().astype(int) - true.rgb()).mean() < 6, name
                assert account.frames_decoded == len(decode_whole(path)[0])
            except VideoError as error:
                assert error.code == ErrorCode.UNSUPPORTED_CONTAINER
                refused.add(name)
    assert ALWAYS_REFUSED <= refused <= MAY_BE_REFUSED


@needs_decord
def test_units_are_a_full_decode(corpus: Corpus) -> None:
    decode = open_decoder("decord")
    path, sample = corpus.path("long.mp4"), FramesPerSecond(fps=5)

    def frames(units: tuple, settings: DecodeConfig) -> list[tuple[int, int, bytes]]:
        found = []
        for unit in units:
            with path.open("rb") as file:
                decoded = decode(file, unit, settings, DecodeAccount())
                found += [(frame.index, frame.pts_us, frame.rgb().tobytes()) for frame in decoded]
        return found

    settings = DecodeConfig(sample=sample)
    units, _ = cut(path, sample, 4)
    assert len(units) > 5
    assert frames(units, settings) == frames(WHOLE_VIDEO, settings)


@needs_decord
def test_hdr_is_refused_unless_it_is_taken_as_coded(tmp_path: Path) -> None:
    place = write_clip(tmp_path / "hlg.mp4", [np.full((96, 128, 3), 90, np.uint8)] * 4, transfer=HLG)
    with place.open("rb") as file:
        with pytest.raises(VideoError, match=r"decode.tone_map to off") as caught:
            next(open_decoder("decord")(file, WHOLE_VIDEO[0], DecodeConfig(), DecodeAccount()))
        assert caught.value.code == ErrorCode.UNSUPPORTED_CONTAINER
        frames = open_decoder("decord")(file, WHOLE_VIDEO[0], DecodeConfig(tone_map="off"), account := DecodeAccount())
        assert len(list(frames)) == 4
    assert (account.transfer, account.tone_mapped) == ("arib-std-b67", False)
