"""Truncated, empty or corrupt records: commands report one line, and only what depends on the record stops."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from featray.schema import SCHEMA_VERSION
from tests.fixtures.handmade import RELEASE, write_output
from tests.fixtures.hostile import featray

ERASED = "bbbb000000000000"
JUNK = {
    "empty": b"",
    "cut": b'{"name": "0", "run_id": "run-1", "files": [{"table": "fac',
    "binary": bytes(range(256)),
    "another record": b'{"number": 3}',
    "deep": b"[" * 200_000,
    "newer": json.dumps({"schema": 99, "content": {"tables": {}}}).encode(),
}
LONG = pytest.mark.long
junk = pytest.mark.parametrize(
    "junk",
    [pytest.param(data, id=name, marks=[] if name in ("cut", "newer") else LONG) for name, data in JUNK.items()],
)
"""Most of them run only in `make test-long`, because one parser reads all records."""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Return an output with two datasets, of one release each."""
    out = tmp_path_factory.mktemp("made") / "out"
    write_output(out)
    return out


@pytest.fixture
def out(made, tmp_path) -> Path:
    shutil.copytree(made, tmp_path / "out")
    return tmp_path / "out"


def plant(out: Path, name: str, data: bytes) -> Path:
    path = out / "_featray" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def refused(done, path: Path) -> bool:
    """Return whether a command ended with one line that names the file."""
    said = [line for line in done.stderr.splitlines() if line]
    return done.exit_code == 1 and len(said) == 1 and str(path) in said[0] and said[0].startswith("featray: ")


def problems(out, *words) -> list[str]:
    done = featray("verify", out, *words)
    assert done.exit_code == 1
    return [line for line in done.output.splitlines() if line.startswith("problem")]


@junk
def test_a_commit_of_another_release_stops_none_of_this_one(out, junk, tmp_path):
    path = plant(out, "commits/one/other-release/junk.json", junk)
    for words in (
        ["status", out],
        ["status", out, "--release", RELEASE],
        ["query", out, "SELECT count(*) FROM faces", "--release", RELEASE],
        ["export", out, "--video", "bbbb000000000000", "--format", "csv", "--out", tmp_path / "a.csv"],
    ):
        assert featray(*words).exit_code == 0
    assert any(str(path) in line and "damaged commit record" in line for line in problems(out))
    assert not any(str(path) in line for line in problems(out, "--release", RELEASE))
    assert refused(featray("status", out, "--release", "other-release"), path)
    assert refused(featray("status", out, "--release", "all"), path)


@junk
def test_a_commit_stops_its_own_release(out, junk):
    path = plant(out, f"commits/one/{RELEASE}/junk.json", junk)
    assert refused(featray("status", out), path)
    assert refused(featray("query", out, "SELECT 1"), path)
    assert sum(str(path) in line for line in problems(out)) == 1
    assert refused(featray("publish", out), path)
    done = featray("compact", out)
    assert refused(done, path) and f"two/{RELEASE}: 4 files in 1 commit" in done.output


@junk
def test_a_commit_of_a_dataset_stops_none_of_another(out, junk, tmp_path):
    plant(out, f"commits/one/{RELEASE}/junk.json", junk)
    video = ["--dataset", "two", "--video", "aaaa000000000000"]
    for words in (
        ["export", out, *video, "--format", "csv", "--out", tmp_path / "a.csv"],
        ["export", out, "--dataset", "two", "--summary", "csv", "--out", tmp_path / "c.csv"],
    ):
        done = featray(*words)
        assert done.exit_code == 0, done.output


def test_a_machine_is_told_what_was_done_and_what_stopped(out):
    path = plant(out, f"commits/one/{RELEASE}/junk.json", b"junk")
    for command, keys in (
        ("publish", {"published", "waiting", "changes", "cleaned", "leftovers", "runs", "landed"}),
        ("compact", {"commits_before", "files_before", "commits", "files", "refused"}),
    ):
        done = featray(command, out, "--json")
        assert refused(done, path)
        one, two = json.loads(done.stdout)["releases"]
        assert (one.pop("dataset"), two.pop("dataset")) == ("one", "two") and one.keys() == {"release", "error"}
        assert two.pop("release") == RELEASE and two.keys() == keys
    path.unlink()
    assert featray("publish", out).stdout == "nothing to finish\n"
    assert featray("publish", out, "--json").exit_code == 0


@junk
@pytest.mark.parametrize("kind", ["shards", "running"])
def test_open_work_stops_no_reader(out, junk, kind):
    path = plant(out, f"{kind}/one/{RELEASE}/junk.json", junk)
    assert featray("status", out).exit_code == 0
    assert featray("query", out, "SELECT count(*) FROM faces").exit_code == 0
    assert sum(str(path) in line for line in problems(out)) == 1
    assert refused(featray("compact", out), path)
    done = featray("publish", out)
    assert refused(done, path) and "; delete it" in done.stderr
    path.unlink()
    assert featray("publish", out).exit_code == 0


@junk
def test_an_erasure_stops_only_its_video(out, junk):
    path = plant(out, f"erased/{ERASED}.json", junk)
    plant(out, "erased/notes.json", junk)
    for words in (["status", out], ["publish", out], ["compact", out]):
        assert featray(*words).exit_code == 0
    assert all(f"featray erase OUT --video {ERASED}" in line for line in problems(out) if str(path) in line)
    assert refused(featray("erase", out, "--video", ERASED), path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "damaged"),
        (b'{"schema_version": "2"}', "damaged"),
        (b'{"schema_version": [1]}', "damaged"),
        (b"[" * 200_000, "damaged"),
        (json.dumps({"schema_version": SCHEMA_VERSION + 1}).encode(), "upgrade featray"),
    ],
)
def test_an_output_of_another_kind(out, text, says):
    plant(out, "output.json", text)
    for command in ("status", "verify", "publish", "compact"):
        done = featray(command, out)
        assert done.exit_code == 1 and says in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "shown"), [("a\x1b[2Jb", r"a\x1b[2Jb"), ("*", "*"), ("[h]and-made-0", "[h]and-made-0")]
)
def test_a_folder_of_a_name_that_no_run_gives_is_passed_over(out, name, shown):
    plant(out, f"commits/one/{name}/junk.json", b"junk")
    assert featray("status", out, "--release", "all").exit_code == 0
    assert featray("publish", out).exit_code == 0
    assert any(f"_featray/commits/one/{shown}: not a valid name" in line for line in problems(out))


PLACES = {
    "commit": f"_featray/commits/one/{RELEASE}/junk.json",
    "open shard": f"_featray/shards/one/{RELEASE}/junk.json",
    "run": f"_featray/running/one/{RELEASE}/junk.json",
    "lease": f"_featray/leases/one/{RELEASE}/00000007.json",
    "erasure": f"_featray/erased/{ERASED}.json",
    "output": "_featray/output.json",
}
"""Records that a command reads before it does anything."""

COMMANDS = {"commit": ["status"], "open shard": ["publish"], "run": ["compact"], "lease": ["publish"]}
COMMANDS |= {"erasure": ["erase", "--video", ERASED], "output": ["status"]}


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 64 << 30)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        pytest.param(kind, make, id=f"{kind}-{make.__name__}", marks=[] if "commit" == kind or make is pipe else LONG)
        for kind in PLACES
        for make in (pipe, endless, huge)
    ],
)
def test_a_record_that_has_no_end(out, kind, make):
    """No command waits for it, and none reads it into memory."""
    path = out / PLACES[kind]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    make(path)
    command, *words = COMMANDS[kind]
    done = featray(command, out, *words)
    assert refused(done, path), done.output
    assert any(why in done.stderr for why in ("is a pipe", "leads out of", "68,719,476,736 bytes"))
    if kind != "output":
        assert featray("verify", out).exit_code in (0, 1)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("command", [["query", "SELECT count(*) FROM faces"], ["verify"]])
def test_a_table_that_is_a_pipe(out, command):
    path = next((out / "faces" / "dataset=one").rglob("*.parquet"))
    path.unlink()
    pipe(path)
    done = featray(command[0], out, *command[1:])
    assert done.exit_code == 1 and f"{path}: is a pipe" in done.output


@pytest.mark.parametrize("name", ["[ab]", "*", "evil\nfeatray: all is well", "a\u2028b"])
@pytest.mark.parametrize("kind", ["commits", "shards", "running"])
def test_a_name_that_no_record_has(out, kind, name):
    plant(out, f"{kind}/one/{RELEASE}/{name}.json", b"{}")
    done = featray("publish", out)
    assert done.exit_code == 1 and len(done.stderr.splitlines()) == 1 and kind in done.stderr
    found = featray("verify", out)
    lines = [line for line in found.output.splitlines() if f"{kind}/one/{RELEASE}" in line]
    assert len(lines) == 1 and lines[0].startswith("problem "), found.output


def holder(**told: object) -> bytes:
    now_us = time.time_ns() // 1000
    record = {"number": 7, "token": "t", "run_id": "r", "host": "h", "user": "u", "machine": "m", "pid": 1}
    record |= {"pid_started": "1", "since_us": now_us, "renewed_us": now_us}
    return json.dumps(record | told).encode()


def test_a_holder_adds_no_line_to_what_is_told(out):
    evil = "h\nfeatray: all is well\x1b[2J\u2028"
    path = plant(out, f"leases/one/{RELEASE}/00000007.json", holder(host=evil, user=evil))
    plant(out, f"leases/o\x1b[2Jne/{RELEASE}/00000007.json", holder())
    for words in (["status", out], ["publish", out]):
        done = featray(*words)
        assert "\nfeatray: all" not in done.output and "\u2028" not in done.output
        assert r"h\nfeatray: all is well\x1b[2J" in done.output
    assert len(json.loads(featray("status", out, "--json").stdout)["live"]) == 1
    assert path.exists()


@pytest.mark.parametrize(
    "wrong", [{"seconds": float("nan")}, {"seconds": 1e308}, {"share": float("nan")}, {"frames": 10**400}]
)
def test_a_holder_that_stands_nowhere(out, wrong):
    standing = {"seconds": 1, "videos_done": 1, "videos_expected": 1, "listed_all": True, "frames": 1, "faces": 1}
    standing |= {"share": 1e-300, **wrong}
    plant(out, f"leases/one/{RELEASE}/00000007.json", holder(standing=standing))
    assert featray("status", out).exit_code == 0
    assert "NaN" not in (told := featray("status", out, "--json").stdout) and "Infinity" not in told
    assert "held by another run" in featray("publish", out).stderr


@pytest.mark.parametrize("table", ["faces", "videos"])
@pytest.mark.parametrize("data", [b"", b"PAR1" * 100], ids=["empty", "junk"])
def test_a_published_file_stops_what_reads_it(published, tmp_path, table, data):
    out = tmp_path / "out"
    shutil.copytree(published, out)
    path = next((out / table).rglob("*.parquet"))
    path.write_bytes(data)
    assert featray("status", out).exit_code == (1 if table == "videos" else 0)
    done = featray("compact", out)
    assert refused(done, path)
    assert any(str(path.relative_to(out)) in line for line in problems(out))


def a_copy_of_another_dataset(out: Path, commit: dict) -> dict:
    """In dataset one; its files are of dataset two."""
    other = json.loads((out / f"_featray/commits/two/{RELEASE}/0.json").read_bytes())
    return {"copy": other | {"name": "copy"}, "undone": UNDONE}


def a_copy_of_the_same_dataset(out: Path, commit: dict) -> dict:
    return {"copy": commit | {"name": "copy"}}


def a_copy_that_is_undone(out: Path, commit: dict) -> dict:
    return {"copy": commit | {"name": "copy"}, "undone": UNDONE}


def a_file_named_twice(out: Path, commit: dict) -> dict:
    return {"0": commit | {"files": commit["files"] * 2}}


def two_that_rewrite_each_other(out: Path, commit: dict) -> dict:
    first, second = (commit | {"name": name, "files": files} for name, files in (("0", commit["files"]), ("1", [])))
    second["files"] = first["files"].pop(), first["files"].pop()
    return {
        "0": first | {"rewrites": [second | {"files": second["files"][:1]}]},
        "1": second | {"rewrites": [first | {"files": first["files"][:1]}]},
    }


UNDONE = {
    "name": "undone",
    "run_id": "",
    "published_at_us": 1,
    "files": [],
    "rewrites": [{"name": "copy", "run_id": "", "published_at_us": 1, "files": []}],
}
"""A change that replaces the commit `copy` by nothing, and was interrupted before it deleted its files."""


@pytest.mark.parametrize(
    ("plant_commits", "says"),
    [
        (a_copy_of_another_dataset, "copy.json: damaged commit record"),
        (a_copy_of_the_same_dataset, "commits 0 and copy both name"),
        (a_copy_that_is_undone, None),
        (a_file_named_twice, "0.json: damaged commit record"),
        (two_that_rewrite_each_other, None),
    ],
)
@pytest.mark.parametrize("command", ["publish", "compact"])
def test_a_commit_that_names_files_of_another_deletes_none(out, plant_commits, says, command):
    folder = out / f"_featray/commits/one/{RELEASE}"
    for name, commit in plant_commits(out, json.loads((folder / "0.json").read_bytes())).items():
        (folder / f"{name}.json").write_text(json.dumps(commit))
    if says:
        assert any(says in line for line in problems(out))
    done = featray(command, out)
    assert done.exit_code == (1 if says else 0), done.output
    assert (says or "") in done.stderr
    for path in (out / "_featray/commits").rglob("*.json"):
        if path.stem != "copy":
            named = [file["path"] for file in json.loads(path.read_bytes())["files"]]
            assert [one for one in named if not (out / one).exists()] == [], path


@pytest.mark.parametrize("folder", ["before", "before/too"])
def test_a_copy_in_a_folder_below_takes_the_place_of_none(out, folder):
    """An old copy that somebody keeps there is no commit, else files that it does not name would be deleted."""
    at = f"commits/one/{RELEASE}"
    plant(out, f"{at}/{folder}/0.json", (out / "_featray" / at / "0.json").read_bytes())
    assert featray("derive", out).exit_code == 0
    made = sorted(out.glob("tracks/dataset=one/**/*.parquet"))
    assert featray("compact", out).exit_code == featray("publish", out).exit_code == 0
    assert made and sorted(out.glob("tracks/dataset=one/**/*.parquet")) == made


def test_a_table_with_damaged_pages_is_called_damaged(out):
    for path in out.glob("faces/dataset=one/**/*.parquet"):
        data = path.read_bytes()
        path.write_bytes(data[:4] + bytes(byte ^ 0x55 for byte in data[4:400]) + data[400:])
    done = featray("derive", out)
    assert done.exit_code == 1 and "damaged (" in done.stderr and "run `featray verify`" in done.stderr, done.stderr
