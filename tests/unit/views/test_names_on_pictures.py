"""Names of clips and people are legible on pictures, in any alphabet that the fonts have, and tell clips apart."""

import sys

import duckdb
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw

from featray.errors import UsageError
from featray.tables.query import connect
from featray.views import canvas
from featray.views.canvas import shortened, tag, text
from featray.views.page import Look
from featray.views.selection import find_video


def drawn(words, draw=text):
    picture = Image.new("RGB", (200, 40))
    if draw is text:
        text(ImageDraw.Draw(picture), (4, 20), words, 16)
    else:
        tag(ImageDraw.Draw(picture), (4, 30), words, 16, (0, 0, 0), (255, 255, 255))
    return np.asarray(picture)


@pytest.mark.parametrize("draw", [text, tag])
@pytest.mark.parametrize(("one", "other"), [("über", "éber"), ("Мария", "Дарья"), ("Ωμ", "Ψμ")])
def test_letters_that_the_built_in_font_lacks_are_not_all_the_same_box(one, other, draw):
    assert (drawn(one, draw) != drawn(other, draw)).any()


@pytest.fixture
def font_of_the_machine(tmp_path, monkeypatch):
    """Install a font that has two Chinese characters, a small and a large square.

    It shows that a font of the machine is found and used, not that its text reads well.
    """
    characters = {"伟": "small", "张": "large"}
    made = FontBuilder(1000, isTTF=True)
    made.setupGlyphOrder([".notdef", *characters.values()])
    made.setupCharacterMap({ord(character): name for character, name in characters.items()})
    glyphs = {}
    for name, size in {".notdef": 200, "small": 400, "large": 800}.items():
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        for corner in ((0, size), (size, size), (size, 0)):
            pen.lineTo(corner)
        pen.closePath()
        glyphs[name] = pen.glyph()
    made.setupGlyf(glyphs)
    made.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    made.setupHorizontalHeader(ascent=800, descent=-200)
    made.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    made.setupOS2()
    made.setupPost()
    (tmp_path / "fonts").mkdir()
    made.save(tmp_path / "fonts" / canvas._SYSTEM_FONTS[0])
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path))
    forget_fonts()
    yield
    forget_fonts()


def forget_fonts():
    canvas._system_font.cache_clear()
    canvas._has.cache_clear()


@pytest.mark.skipif(sys.platform != "linux", reason="Pillow finds fonts in other places elsewhere")
def test_chinese_names_are_drawn_with_a_font_of_the_machine(font_of_the_machine):
    one, other = drawn("张伟"), drawn("伟张")
    assert (one != other).any()
    assert (drawn("张王") != drawn("伟王")).any(), "one character that no font has does not hide the others"


def test_without_such_a_font_the_picture_is_still_made(tmp_path, monkeypatch):
    monkeypatch.setattr(canvas, "_SYSTEM_FONTS", ())
    forget_fonts()
    assert drawn("张伟.mp4").any()
    forget_fonts()


def test_a_shortened_name_fits_in_the_font_in_which_it_is_drawn():
    words = shortened("Мария_" * 20, 16, 150)
    columns = np.flatnonzero(drawn(words).any(axis=(0, 2)))
    assert "…" in words and 100 < columns[-1] - columns[0] <= 150


def test_a_clip_is_shown_with_its_folder(made):
    video = find_video(connect(made.output), "turned.mp4")
    folder = video.uri.split("/")[-2]
    assert Look(video, frozenset(), False, None).title == f"{folder}/turned.mp4  ({video.video_id})"
    assert Look(video, frozenset(), True, None).title == video.video_id


def test_a_name_of_several_clips_lists_their_places():
    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE videos AS SELECT 'd' dataset, 'r' AS release, id AS video_id, uri, NULL::VARCHAR AS member "
        "FROM (VALUES ('1', 'file:///P01/stress.mp4'), ('2', 'file:///P02/stress.mp4')) t(id, uri)"
    )
    with pytest.raises(UsageError) as caught:
        find_video(connection, "stress.mp4")
    assert str(caught.value) == (
        "stress.mp4: matches 2 videos: file:///P01/stress.mp4 (1), file:///P02/stress.mp4 (2); "
        "give more of the path of one, or its id"
    )
    connection.execute("UPDATE videos SET video_id = '1', uri = 'file:///P01/stress.mp4', release = 'r' || rowid")
    with pytest.raises(UsageError, match=r"is in 2 releases: d/r0, d/r1; select one by --dataset and --release"):
        find_video(connection, "stress.mp4")
