"""Sequences of pictures on Ray: plans and pictures travel between processes, and the tables are the local ones."""

import io

from featray.run.runner import run
from featray.tables.layout import open_output
from featray.tables.query import connect, run_sql
from tests.fixtures.runs import make_config, silent
from tests.fixtures.sequences import bad_pictures, clip_pictures, write_tar


def rows(out, table):
    sql = f"SELECT * EXCLUDE (run_id, release) FROM {table} ORDER BY video_id, frame_index"
    return run_sql(connect(open_output(str(out))), sql).read_all()


def test_both_executors_give_the_same_tables_of_pictures(cluster, face_clip, tmp_path):
    """Two units of a folder, one of a tar; a picture is bad, and times are those of a manifest."""
    (tmp_path / "faces").mkdir()
    files = []
    for i, image in enumerate(clip_pictures(face_clip, 18, 320)):
        image.save(file := io.BytesIO(), "PNG", compress_level=1)
        files.append((f"{i}.png", file.getvalue()))
    files[3] = ("3.png", bad_pictures()["half.png"])
    for name, data in files:
        (tmp_path / "faces" / name).write_bytes(data)
    write_tar(tmp_path / "faces.tar", files[:4])
    times = " ".join(str(33_000 * i + i % 2) for i in range(18))
    (tmp_path / "list.csv").write_text(f'path,pts_us\nfaces,"{times}"\nfaces.tar,"0 10 20 30"\n')
    for executor in ("local", "ray"):
        decode, uri = {"sample": "all", "unit_frames": 16}, tmp_path / "list.csv"
        config = make_config([uri], tmp_path / executor, decode=decode, cluster={"executor": executor})
        assert run(config, silent()).videos == {"ok": 0, "partial": 2, "failed": 0}
    assert rows(tmp_path / "ray", "faces").num_rows == 17 + 3
    for table in ("frames", "faces", "blendshapes", "mesh"):
        assert rows(tmp_path / "ray", table) == rows(tmp_path / "local", table)
    assert rows(tmp_path / "ray", "frames")["pts_us"].to_pylist()[:4] in ([0, 10, 20, 30], [0, 33_001, 66_000, 99_001])
