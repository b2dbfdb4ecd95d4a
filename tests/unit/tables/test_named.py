"""The names by which a video is found."""

import duckdb
import pytest

from featray.tables.named import is_named, not_named

VIDEOS = [
    ("0000000000000001", "s3://b/P01/baseline.mp4", None),
    ("0000000000000002", "s3://b/P02/baseline.mp4", None),
    ("0000000000000003", "s3://b/P02/baseline.mov", None),
    ("0000000000000004", "s3://b/shard.tar", "P03/session.1.webm"),
    ("0000000000000005", "s3://b/P04/session.1", None),
    ("0000000000000006", "s3://b/v1.2/it's", None),
    ("0000000000000007", "s3://b/pictures/s2/", None),
]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("0000000000000002", "2"),
        ("s3://b/P01/baseline.mp4", "1"),
        ("P02/baseline.mp4", "2"),
        ("baseline.mp4", "12"),
        ("baseline", "123"),
        ("P01/baseline", "1"),
        ("P02/baseline", "23"),
        ("s3://b/P01/baseline", "1"),
        ("shard.tar", ""),
        ("s3://b/shard.tar", "4"),
        ("session.1.webm", "4"),
        ("session.1", "5"),  # the whole name of one comes before the name of the other without its suffix
        ("P03/session.1", "4"),
        ("s3://b/shard.tar#P03/session.1", "4"),
        ("session", "5"),
        ("v1", ""),
        ("it's", "6"),
        ("s2", "7"),
        ("s2/", "7"),
        ("pictures/s2", "7"),
        ("line", ""),
        ("", ""),
    ],
)
def test_a_video_has_its_id_its_uri_and_the_end_of_it(name, found):
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE videos (video_id TEXT, uri TEXT, member TEXT)")
        connection.executemany("INSERT INTO videos VALUES (?, ?, ?)", VIDEOS)
        rows = connection.execute(f"SELECT video_id FROM videos WHERE {is_named(name)} ORDER BY ALL").fetchall()
    assert "".join(row[0][-1] for row in rows) == found


def test_an_example_of_a_name_is_never_empty():
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE videos AS SELECT 's3://b/pictures/s2/' AS uri, NULL AS member")
        assert "the last parts of one, such as s2; list them" in str(not_named(connection, "x"))
        assert len(str(not_named(connection, "x" * 70_000))) < 1000
