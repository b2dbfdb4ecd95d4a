"""Templates are bit-identical for any layout of rows in files, and tracks have their time on screen."""

import numpy as np
import pyarrow as pa
import pytest

from featray.faces.embedder import unit
from featray.persons.templates import Templates

VIDEOS = [f"{i * 7919 % 65536:016x}" for i in range(40)]


@pytest.fixture(scope="module")
def rows():
    """Return embeddings and faces in the order of published files, where tracks of a video are interleaved."""
    rng = np.random.default_rng(9)
    video = np.sort(rng.integers(0, len(VIDEOS), 3000))
    track = rng.integers(0, 3, len(video))
    vectors = unit(rng.normal(size=(len(video), 8)))
    ids = pa.array([sorted(VIDEOS)[i] for i in video])
    known = {"video_id": ids, "track_id": pa.array(track, pa.int32())}
    quality = pa.array(rng.uniform(0.1, 1, len(video)).astype(np.float32))
    listed = pa.ListArray.from_arrays(
        pa.array(np.arange(len(video) + 1, dtype=np.int32) * 8), pa.array(vectors.ravel())
    )
    return (
        pa.table({**known, "quality": quality, "embedding": listed}),
        pa.table({**known, "frame_index": pa.array(np.arange(len(video)), pa.int32())}),
    )


def made(rows, cuts, turned=False):
    templates = Templates()
    bounds = list(zip([0, *cuts], [*cuts, rows[0].num_rows], strict=True))
    for start, end in reversed(bounds) if turned else bounds:
        templates.add_embeddings(rows[0].slice(start, end - start))
        templates.add_faces(rows[1].slice(start, end - start))
    return templates.tracks()


def test_files_and_row_groups_do_not_count(rows):
    keys, tracks, without = made(rows, [])
    assert len(keys) == 120 and without == 0 and tracks.templates.dtype == np.float32
    for cuts, turned in (([1, 2, 3, 500, 1700], False), (list(range(0, 3000, 7)), True)):
        again_keys, again, _ = made(rows, cuts, turned)
        assert again_keys.videos == keys.videos and np.array_equal(again_keys.packed, keys.packed)
        for name in ("video", "track_id", "start", "end", "templates", "weights"):
            assert np.array_equal(getattr(again, name), getattr(tracks, name)), name


def test_against_a_loop(rows):
    keys, tracks, _ = made(rows, [777])
    table = rows[0].to_pylist()
    for place in range(0, len(keys), 17):
        mine = [(i, row) for i, row in enumerate(table) if (row["video_id"], row["track_id"]) == keys.at(place)]
        total = sum(np.array(row["embedding"]) * row["quality"] for _, row in mine)
        assert np.allclose(tracks.templates[place], total / np.linalg.norm(total), atol=1e-6)
        assert tracks.weights[place] == pytest.approx(sum(row["quality"] for _, row in mine))
        assert (tracks.start[place], tracks.end[place]) == (mine[0][0], mine[-1][0])


def test_tracks_without_an_embedding_are_counted_and_have_no_person(rows):
    templates = Templates()
    templates.add_embeddings(rows[0].slice(0, 100))
    templates.add_faces(rows[1])
    keys, _, without = templates.tracks()
    video_id, track_id = keys.at(1)
    assert without == 120 - len(keys)
    assert keys.places(pa.array([video_id, video_id]), [99, track_id]).tolist() == [-1, 1]


def test_nothing_is_no_track():
    keys, tracks, without = Templates().tracks()
    assert (len(keys), len(tracks), without) == (0, 0, 0)
