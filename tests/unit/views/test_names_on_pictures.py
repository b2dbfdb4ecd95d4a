"""Names of clips and people are legible on pictures, in any alphabet that the fonts have, and tell clips apart."""

import duckdb
import numpy as np
import pytest
from PIL import Image, ImageDraw

from featray.errors import UsageError
from featray.tables.query import connect
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
