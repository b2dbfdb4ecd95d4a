"""`featray run` and `featray plan` with videos instead of a config."""

import json
import shutil

import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.cli.inputs import read_inputs
from featray.config import load_config
from tests.fixtures.runs import small_network as small_network


def featray(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("inputs", "dataset"),
    [
        (["lab clips"], "lab_clips"),
        (["lab clips/"], "lab_clips"),
        (["lab clips/a.mp4"], "lab_clips"),
        (["lab clips/a.mp4", "lab clips/deep/b.mp4"], "lab_clips"),
        (["lab clips/*.mp4"], "lab_clips"),
        (["clips.v2"], "clips.v2"),
        (["s3://bucket/raw/**/*.mp4"], "raw"),
        (["s3://bucket"], "bucket"),
        (["s3://one/a.mp4", "s3://two/a.mp4"], "videos"),
        (["видео"], "videos"),
        (["-x-/.hidden.mp4"], "x"),
        (["x" * 80], "x" * 64),
    ],
)
def test_the_dataset_is_called_after_the_folder(tmp_path, monkeypatch, inputs, dataset):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab clips").mkdir()
    (tmp_path / "clips.v2").mkdir()
    config = read_inputs(tuple(inputs), "out", ())
    assert config.dataset == dataset
    assert config.output.uri == str(tmp_path / "out"), "the same from any folder"
    assert read_inputs(tuple(inputs), "s3://b/out", ("dataset=other",)).dataset == "other"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["video.mp4"], "video.mp4: no place for the tables; give --out OUT"),
        (["a.yaml", "b.mp4", "--out", "o"], "a.yaml: a config cannot be combined"),
        (["a.YML", "--out", "o"], "--set output.uri=o"),
        (["none.yaml"], "none.yaml: no such config file"),
        (["a.mp4", "--out", "o", "--set", "decode.smple=all"], "did you mean decode.sample?"),
        (
            ["a.mp4", "--out", "o", "--save-config", "c.yaml", "--set", "output.storage_options.secret=hunter2"],
            "secret",
        ),
        (["a.mp4", "--out", "o", "--save-config", "there.yaml"], "--save-config there.yaml: File exists"),
    ],
)
def test_what_cannot_be_run_is_one_line(clips, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    shutil.copy(clips / "no_face.mp4", "video.mp4")
    (tmp_path / "there.yaml").touch()
    done = featray("run", *arguments)
    assert done.exit_code == 2 and done.stderr.count("\n") == 1, done.output
    assert expected in done.stderr and "hunter2" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there.yaml", "video.mp4"]


def test_a_folder_is_run_and_its_config_runs_the_same(clips, small_network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(clips, "my (lab) clips")
    arguments = ["my (lab) clips/", "--out", "OUT"]
    settings = ["--set", f"model.checkpoint={small_network}", "--set", "decode.sample={every: 118}"]
    done = featray("run", *arguments, *settings, "--save-config", "mine.yaml")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("weights: synthetic (random); facial numbers will carry no meaning\n")
    saved = load_config(tmp_path / "mine.yaml")
    assert (saved.dataset, saved.decode.sample.every) == ("my_lab_clips", 118)
    again = featray("run", "mine.yaml", "--log-line")
    assert json.loads(again.stdout)["status"] == "nothing_to_do"
    rows = featray("query", "OUT", "SELECT dataset, uri FROM videos ORDER BY uri", "--format", "json")
    assert [(row["dataset"], row["uri"].rsplit("/", 1)[-1]) for row in json.loads(rows.stdout)] == [
        ("my_lab_clips", "face.mp4"),
        ("my_lab_clips", "no_face.mp4"),
    ]
    planned = featray("plan", "my (lab) clips/", *settings)
    assert planned.exit_code == 0, planned.output
    assert planned.stdout.splitlines()[0].startswith("release  atto-"), "no output was named"
    assert "videos   2 to do" in planned.stdout, "none is published there, whatever a folder of the help's name holds"


def test_an_input_whose_name_is_not_utf_8_is_refused_as_no_table_could_store_it(tmp_path):
    done = featray("run", f"{tmp_path}/caf\udce9/", "--out", tmp_path / "out")
    assert done.exit_code == 2 and "caf\\xe9/: its name is not UTF-8" in done.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", ["preview --out p.png --video", "erase --video", "export --format csv --video"])
def test_a_name_that_is_not_utf_8_is_no_damage_of_the_output(published, words):
    command, *options = words.split()
    done = featray(command, published, *options, "caf\udce9")
    assert (done.exit_code, done.stderr) == (2, "featray: caf\\xe9: is not UTF-8, as all names in an output are\n")
