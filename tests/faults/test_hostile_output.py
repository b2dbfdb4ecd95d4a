"""An output from an untrusted source is data: nothing in it can make featray read, write or delete anything outside.

Each hostile record is put into a real output, and every command that opens outputs is run on it. The checks: everything
beside the output is unchanged, and no answer contains its text.
"""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from featray.config_derive import DERIVE_EPOCH
from tests.fixtures.hostile import SECRET, House, featray, furnish
from tests.fixtures.published import SPARSE
from tests.fixtures.runs import small_config

CANCELLED = {"run_id": "r", "files": [], "videos": [], "rewrites": []}


@pytest.fixture
def house(published, inputs, small_network, tmp_path) -> House:
    root = tmp_path / "house"
    root.mkdir()
    furnish(root)
    shutil.copytree(published, root / "out")
    config = small_config([f"{inputs}/*.mp4"], root / "out", small_network, decode=SPARSE)
    data = config.model_dump(mode="json") | {"cluster": {"executor": "local"}}
    (root / "run.yaml").write_text(yaml.safe_dump(data))
    videos = [
        v
        for path in (root / "out").glob("_featray/commits/*/*/*.json")
        for v in json.loads(path.read_bytes())["videos"]
    ]
    return House(root, root / "out", root / "run.yaml", next(v["video_id"] for v in videos if v["status"] == "ok"))


def use(house: House, *, report: bool = True) -> dict[str, int]:
    """Run every command that opens an output, and return the exit codes. The files that they write are deleted.

    A report takes longest, and opens files as a query does, so it can be left out if the plant adds no new text.
    """
    out, before = house.out, house.things()
    made = house.root / "made"
    made.mkdir()
    commands = {
        "status": ["status", out],
        "query": ["query", out, "SELECT * FROM faces JOIN videos USING (video_id)"],
        "safe": ["query", out, "SELECT count(*) FROM videos", "--safe"],
        "export": ["export", out, "--video", house.video_id, "--format", "csv", "--out", made / "a.csv"],
        "report": ["report", out, "--out", made / "a.html", "--no-thumbnails"],
        "verify": ["verify", out],
        "publish": ["publish", out],
        "erase": ["erase", out, "--video", house.video_id],
        "compact": ["compact", out],
        "run": ["run", house.config, "--quiet"],
    }
    if not report:
        del commands["report"]
    codes = {}
    for name, words in commands.items():
        codes[name] = featray(*words).exit_code
        things = house.things()
        assert things.keys() - before.keys() <= {"made", "made/a.csv", "made/a.html"}, name
        assert {thing: things.get(thing) for thing in before} == before, name
    assert not any(SECRET in path.read_text(errors="replace") for path in made.iterdir())
    shutil.rmtree(made)
    return codes


def sql_in_the_name_of_a_commit(house: House) -> None:
    name, commit = next((n, c) for n, c in house.commits().items() if c["videos"])
    house.folder("commits").joinpath(f"{name}.json").unlink()
    evil = f"x'); COPY (SELECT 1) TO '{house.root}/pwned.csv'; --"
    # A file name cannot contain `/`, so the name inside the record differs from it.
    house.write("commits", "evil", commit | {"name": evil})


def sql_in_a_video_id(house: House) -> None:
    evil = f"x'; COPY (FROM read_text('{house.root}/victim.txt')) TO '{house.root}/pwned.csv'; "
    evil += "SELECT filename FROM (SELECT '' AS filename, 0 AS frame_index) WHERE '1' = '1"

    def edit(rows: pa.Table) -> pa.Table:
        ids = [evil if i == 0 else value for i, value in enumerate(rows["video_id"].to_pylist())]
        return rows.set_column(rows.column_names.index("video_id"), rows.schema.field("video_id"), pa.array(ids))

    house.edit_table("faces", edit)


def sql_in_the_name_of_a_column(house: House) -> None:
    evil = f"""video_id", '') || (SELECT content FROM read_text('{house.root}/victim.txt')) || coalesce("dataset"""
    house.edit_table("videos", lambda rows: rows.append_column(evil, pa.array(["x"] * rows.num_rows)))


def sql_in_the_name_of_a_path_field(house: House) -> None:
    """A path field is the name of a folder and of a column; a relative path in it starts in the process's folder."""
    evil = "true, false) THEN '' END) AS text FROM one_file); COPY (SELECT 1) TO 'pwned.csv'; --"
    house.edit_table("videos", lambda rows: rows.append_column(evil, pa.array(["x"] * rows.num_rows)))
    name, file, path = house.table_file("videos")
    moved = path.parent / f"{evil}=x" / path.name
    moved.parent.mkdir()
    path.rename(moved)
    commit = house.commits()[name]
    for one in commit["files"]:
        if one["path"] == file["path"]:
            one["path"] = str(moved.relative_to(house.out))
    house.write("commits", name, commit)


def a_commit_that_deletes(house: House) -> None:
    file = {"table": "faces", "path": "../victim.txt", "rows": 1, "size_bytes": 1, "sha256": "0" * 64}
    house.write("commits", "old", CANCELLED | {"name": "old", "published_at_us": 1, "files": [file]})
    nothing = CANCELLED | {"name": "old", "published_at_us": 1}
    house.write("commits", "new", CANCELLED | {"name": "new", "published_at_us": 1, "rewrites": [nothing]})


def a_commit_that_writes(house: House) -> None:
    _, file, _ = house.table_file("videos")
    elsewhere = CANCELLED | {"name": "../../../../../elsewhere", "published_at_us": 1, "files": [file]}
    house.write("commits", "new", CANCELLED | {"name": "new", "published_at_us": 1, "rewrites": [elsewhere]})


def a_manifest_that_deletes(house: House) -> None:
    shard = next(name for name, commit in house.commits().items() if commit["videos"])
    video = {"video_id": "../../../../../my", "uri": "u", "work_key": "project"}
    manifest = {"shard": shard, "run_id": "r", "fields": {}, "videos": [video]}
    house.write("shards", shard, manifest)


def a_marker_of_another_place(house: House) -> None:
    run = next(name.removeprefix("run-") for name in house.commits() if name.startswith("run-"))
    evil = "../../../../../victim"
    row = pq.read_table(house.table_file("runs")[2], partitioning=None).to_pylist()[0]
    row = {k: v for k, v in row.items() if isinstance(v, str)} | {"run_id": evil, "started_at": "2026-01-01T00:00:00"}
    house.write("running", run, row)


def an_erasure_of_another_place(house: House) -> None:
    folder = house.out / "_featray" / "erased"
    folder.mkdir()
    one = {"erasure_id": "e", "video_id": "../../../elsewhere", "track_id": None, "release": None, "at_us": 1}
    (folder / f"{house.video_id}.json").write_text(json.dumps({"video_id": house.video_id, "erasures": [one]}))


def a_link_for_a_folder_of_rows(house: House) -> None:
    path = house.table_file("errors")[2]
    shutil.copy(path, house.root / "my-project" / path.name)
    (house.root / "my-project" / "part-compact-0-000.parquet").write_bytes(b"mine")
    shutil.rmtree(path.parent)
    path.parent.symlink_to(house.root / "my-project")


def a_link_for_a_file(house: House) -> None:
    name, file, path = house.table_file("videos")
    path.unlink()
    path.symlink_to(house.root / "secret.parquet")
    house.sign(name, file, path)


def a_link_for_the_landing(house: House) -> None:
    """Its target contains a folder with the name of finished work, which the next run cleans up."""
    videos = [video for commit in house.commits().values() for video in commit["videos"]]
    key = next(video["work_key"] for video in videos if video["video_id"] == house.video_id)
    (house.root / "my-project" / f"{house.video_id}-{key[:16]}").mkdir()
    (house.root / "my-project" / f"{house.video_id}-{key[:16]}" / "plan.json").write_text(SECRET)
    landing = house.folder("landing")
    shutil.rmtree(landing)
    landing.symlink_to(house.root / "my-project")


def a_link_for_the_commits(house: House) -> None:
    """All commands read the commits, and some write them."""
    commits = house.out / "_featray" / "commits"
    commits.rename(house.root / "commits")
    commits.symlink_to(house.root / "commits")


PLANTS = [
    sql_in_the_name_of_a_commit,
    sql_in_a_video_id,
    sql_in_the_name_of_a_column,
    sql_in_the_name_of_a_path_field,
    a_commit_that_deletes,
    a_commit_that_writes,
    a_manifest_that_deletes,
    a_marker_of_another_place,
    an_erasure_of_another_place,
    a_link_for_a_folder_of_rows,
    a_link_for_a_file,
    a_link_for_the_landing,
    a_link_for_the_commits,
]


@pytest.mark.parametrize("plant", PLANTS)
def test_nothing_outside_is_touched(plant, house, monkeypatch):
    monkeypatch.chdir(house.root)
    plant(house)
    assert set(use(house, report=plant.__name__.startswith("sql_")).values()) <= {0, 1, 2}


def test_all_is_well_without_any_of_it(house):
    assert set(use(house).values()) == {0}


def sql_in_an_event(house: House) -> None:
    evil = f"x'; COPY (FROM read_text('{house.root}/victim.txt')) TO '{house.root}/pwned.csv'; --\x1b[2J\x01\"<]]>"

    def edit(rows: pa.Table) -> pa.Table:
        for name in ("kind", "side", "variant"):
            field = rows.schema.field(name)
            rows = rows.set_column(rows.column_names.index(name), field, pa.array([evil] * rows.num_rows))
        return rows

    house.edit_table("events", edit, every=True)


def settings_that_no_derivation_has(house: House) -> None:
    """They are in the footer of derived files, from which rows are derived again."""
    event = {"name": "x", "on_at": 1, "off_at": 0, "least_s": 0, "merge_s": 0}
    for number, expression in enumerate(["AU12 + " + "9" * 400, f"open('{house.root}/victim.txt').read()"]):
        text = json.dumps({"epoch": DERIVE_EPOCH, "events": [event | {"expression": expression}]})
        table = ("tracks", "events")[number]
        house.edit_table(
            table, lambda rows, text=text: rows.replace_schema_metadata({"featray.derive": text}), every=True
        )


def keys_of_a_manifest_that_sql_cannot_say(house: House) -> None:
    text = '{"\\ud800": 1, "a\\u0000b": 2, "x\'; COPY (SELECT 1) TO \'pwned.csv\'; --": 3}'

    def edit(rows: pa.Table) -> pa.Table:
        return rows.set_column(
            rows.column_names.index("extra"), rows.schema.field("extra"), pa.array([text] * len(rows))
        )

    house.edit_table("videos", edit, every=True)


@pytest.mark.parametrize(
    "plant", [sql_in_an_event, settings_that_no_derivation_has, keys_of_a_manifest_that_sql_cannot_say]
)
def test_derived_rows_are_data(plant, house, monkeypatch):
    monkeypatch.chdir(house.root)
    plant(house)
    before = house.things()
    made = house.root / "made"
    made.mkdir()
    export = ["export", house.out, "--out"]
    for words in (
        [*export, made / "e.csv", "--events", "csv"],
        [*export, made / "e.eaf", "--events", "elan", "--video", house.video_id],
        [*export, made / "e.TextGrid", "--events", "textgrid", "--video", house.video_id],
        [*export, made / "s.csv", "--summary", "csv"],
        ["query", house.out, "SELECT * FROM summary"],
        ["status", house.out],
        ["verify", house.out, "--rederive", "9"],
        ["derive", house.out],
    ):
        assert featray(*words).exit_code in (0, 1, 2), words  # 2: a video without an event has no TextGrid
    things = house.things()
    assert {name: things.get(name) for name in before} == before
    assert all(name.startswith("made") for name in things.keys() - before.keys())
    assert not any(SECRET in path.read_text(errors="replace") for path in made.iterdir())


@pytest.mark.parametrize("field", ["../../../../elsewhere/x", "x=y/../../../../elsewhere/x"])
def test_what_has_landed_is_published_inside_only(field, landed, tmp_path):
    """The names of path fields become folders; landed rows are published under them."""
    shutil.copytree(landed, tmp_path / "house" / "out")
    house = House(tmp_path / "house", tmp_path / "house" / "out", Path(), "")
    (shard,) = (house.out / "_featray" / "shards").rglob("*.json")
    manifest = json.loads(shard.read_bytes())
    shard.write_text(json.dumps(manifest | {"fields": {field: "y"}}))
    assert featray("publish", house.out).exit_code == 1
    assert house.things() == {}
