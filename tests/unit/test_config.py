import copy
from pathlib import Path

import pytest

from featray.cli.demo import demo_config
from featray.config import Config, EveryNth, FramesPerSecond, build_config, load_config, parse_config
from featray.errors import ConfigError

MINIMAL = {"dataset": "d", "input": {"uris": ["a.mp4"]}, "output": {"uri": "out"}}
REPOSITORY = Path(__file__).parents[2]


def with_value(path: str, value: object) -> dict:
    data = copy.deepcopy(MINIMAL)
    target = data
    *sections, key = path.split(".")
    for section in sections:
        target = target.setdefault(section, {})
    target[key] = value
    return data


def test_every_key_but_three_has_a_default():
    config = parse_config(MINIMAL)
    assert config.decode.sample == "all"
    assert config.detect.min_score == 0.5


@pytest.mark.parametrize(
    ("written", "parsed"), [("all", "all"), ({"every": 3}, EveryNth(every=3)), ({"fps": 5}, FramesPerSecond(fps=5))]
)
def test_sample_takes_three_forms(written, parsed):
    assert parse_config(with_value("decode.sample", written)).decode.sample == parsed


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (
            "decode.smple",
            "all",
            "decode.smple: unknown key, did you mean decode.sample?; allowed here: backend, sample",
        ),
        ("zzz", 1, "zzz: unknown key; allowed here: dataset, input"),
        ("inputs", {}, "inputs: unknown key, did you mean input?; allowed here: dataset, input"),
        ("min_score", 0.4, "min_score: unknown key, did you mean detect.min_score?; allowed here: dataset"),
        ("decode.min_scor", 0.4, "decode.min_scor: unknown key, did you mean detect.min_score?; allowed here: backend"),
        ("detect.device", "cuda", "detect.device: input should be 'cpu' or 'gpu'"),
        (
            "detect",
            {"detector": "retina-face", "device": "gpu"},
            "detect: device must be cpu with detector retina-face",
        ),
        ("decode.hwaccel", "vaapi", "decode.hwaccel: input should be 'none' or 'cuda'"),
        ("decode", {"backend": "decord", "hwaccel": "cuda"}, "decode: hwaccel must be none with backend decord"),
        ("cluster.decode_gpus", 2, "cluster.decode_gpus: input should be less than or equal to 1"),
        ("decode.sample", {"fps": -1}, "decode.sample: allowed is all, {every: n}"),
        ("decode.sample", "some", "decode.sample: allowed is all, {every: n}"),
        ("decode.sample", {"every": 2, "fps": 3}, "decode.sample: allowed is all"),
        ("detect.min_score", "high", "detect.min_score: input should be a valid number"),
        ("detect.min_score", 1.5, "detect.min_score: input should be less than or equal to 1 (got 1.5)"),
        ("detect.min_score", float("nan"), "detect.min_score"),
        ("detect.detector", "haar", "detect.detector: input should be 'retinaface-mnv1'"),
        ("detect.detector", "boxes", "detect: detector boxes needs boxes: <a Parquet or CSV file>"),
        ("detect.boxes", "b.csv", "detect: boxes is set, but the detector is retinaface-mnv1"),
        ("detect.weights", "w.onnx", "detect: weights is set, but retinaface-mnv1 takes none"),
        ("detect", {"detector": "boxes", "boxes": "b.csv", "every": 2}, "detect: every must be 1 with detector boxes"),
        ("detect.every", 31, "detect.every: input should be less than or equal to 30 (got 31)"),
        ("detect.boxes", 3, "detect.boxes: input should be a valid string"),
        ("cluster.infer_workers", "many", "cluster.infer_workers: allowed is auto or a whole number"),
        ("model", 3, "model: is a section of keys, not a value"),
        ("input", {}, "input.uris: is required"),
        ("input.uris", [], "input.uris: is empty; name at least one file, glob or prefix"),
        ("input.path_fields", "{dataset}/{name}", "'dataset' is already a column"),
        (
            "input.path_fields",
            "{valence}/{status}/{name}",
            "'valence' is already a column of featray's tables; choose another name",
        ),
        ("input.path_fields", "{site}/{STATUS}/{name}", "'STATUS' is already a column"),
        ("input.path_fields", "{au12}/{name}", "'au12' is already a column"),
        ("input.path_fields", "{site}/{Site}/{name}", "input.path_fields: is a pattern of distinct {name} parts"),
        ("input.path_fields", "no names", "input.path_fields: is a pattern"),
        ("output.tables", ["mesh"], "output.tables: lists each table once and always holds faces"),
        (
            "dataset",
            "a/b",
            "dataset: must be letters, digits, `.`, `_` and `-`, at most 64, a letter or digit first",
        ),
        ("input.uris", "clips/", "input.uris: must be a list, also of one; write it in brackets: [...]"),
        ("model.sha256", "0x", "model.sha256: must be 64 hexadecimal digits"),
    ],
)
def test_what_is_refused_is_named_with_what_is_allowed(path, value, expected):
    with pytest.raises(ConfigError, match=r"^config: ") as caught:
        parse_config(with_value(path, value))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_problems_are_shown_at_once():
    data = {"dataset": "a/b", "input": {}, "decode": {"sample": {"fps": -1}, "unit_frmes": 3}, "detect": {"every": 99}}
    with pytest.raises(ConfigError) as caught:
        parse_config(data)
    first, *problems = str(caught.value).splitlines()
    assert first == "config: 6 problems"
    assert [problem.split(":")[0].strip() for problem in problems] == [
        "dataset", "input.uris", "output", "decode.sample", "decode.unit_frmes", "detect.every",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("decode: {unit_frames: 16}\nmodel: {}\ndecode: {}\n", "decode: is given twice, at line 1 and at line 3"),
        ("decode:\n  sample: all\n  'sample': all\n", "decode.sample: is given twice, at line 2 and at line 3"),
        ("decode: {sample: {fps: 1, fps: 2}}", "decode.sample.fps: is given twice, at line 1 and at line 1"),
        ("a: 1\nb: 1\na: 2\nb: 2\n", "b: is given twice, at line 2 and at line 4"),
        ("dataset: 2026-13-45", "looks like a date or a number but is not one; put it in quotes"),
        ("dataset: !!bool hunter2", "looks like a date or a number but is not one"),
        ("dataset: !!timestamp hunter2", "looks like a date or a number but is not one"),
        ("dataset: !!float hunter2", "looks like a date or a number but is not one"),
        ("[" * 5000, "nested too deeply"),
        ("dataset: a\x07b", "control characters are not allowed"),
    ],
)
def test_yaml_that_hides_something_is_refused(tmp_path, text, expected):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml: ") as caught:
        load_config(path)
    assert expected in str(caught.value) and "hunter2" not in str(caught.value)


def test_anchors_and_merged_keys_are_taken(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "dataset: d\ninput: {uris: [a], storage_options: &s {anon: true, key: a}}\n"
        "output: {uri: o, storage_options: {<<: *s, key: b}}\n"
    )
    assert load_config(path).output.storage_options == {"anon": True, "key": "b"}


@pytest.mark.parametrize(
    "bomb",
    [
        "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40)),
        "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 40)),
    ],
)
def test_a_yaml_bomb_is_refused_before_it_grows(tmp_path, bomb):
    """9 to the power of 39 values: a test that expanded them would not end."""
    path = tmp_path / "c.yaml"
    path.write_text("a0: &a0 {x: lol}\n" + bomb)
    with pytest.raises(ConfigError, match=r"grows beyond 100,000 values through its aliases"):
        load_config(path)


def test_a_list_that_holds_itself_is_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("a: &a [*a]\n")
    with pytest.raises(ConfigError, match="through its aliases"):
        load_config(path)


def test_configs_that_name_the_default_device_are_the_default():
    """Runs of older outputs recorded the device like this, and `verify --recompute` reads their configs."""
    assert parse_config(with_value("detect.device", "cpu")) == parse_config(MINIMAL)


def test_overrides_are_yaml_and_reach_into_sections(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("dataset: d\ninput: {uris: [a]}\noutput: {uri: o}\n")
    config = load_config(path, ("decode.sample={fps: 2.5}", "output.tables=[faces]"))
    assert config.decode.sample == FramesPerSecond(fps=2.5)
    assert config.output.tables == ["faces"]


def test_braces_without_a_space_are_explained():
    with pytest.raises(ConfigError, match=r"sample=\{fps:5\}': YAML needs a space after the colon, as in \{fps: 5\}"):
        build_config(copy.deepcopy(MINIMAL), ("decode.sample={fps:5}",), origin="x")
    with pytest.raises(ConfigError, match="needs a space") as refused:
        build_config(copy.deepcopy(MINIMAL), ("input.storage_options={secret:hunter2}",), origin="x")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "override", ["decode", "=1", "dataset.x=1", "a..b=1", "decode.sample={", "decode.sample={fps: 1, fps: 2}"]
)
def test_a_malformed_override_is_refused(tmp_path, override):
    path = tmp_path / "c.yaml"
    path.write_text("dataset: d\ninput: {uris: [a]}\noutput: {uri: o}\n")
    with pytest.raises(ConfigError, match="--set"):
        load_config(path, (override,))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "not valid YAML at line 2"),
        ("a: b: c", "not valid YAML at line 1"),
        ("a:\n\tb: c", "not valid YAML at line 2: found character"),
        ("a:\n\tb: c", "; indent with spaces, not with tabs"),
        ("- 1", "is not a mapping"),
        ("", "is not a mapping"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path, text, expected):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        load_config(path)


def test_braces_are_shown_with_the_quotes_that_they_need(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("dataset: d\ninput: {uris: [a]}\noutput: {uri: o}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, ("input.path_fields={site}/{name}",))
    assert str(caught.value).endswith("""such as --set 'input.path_fields="{site}/{name}"'""")
    assert load_config(path, ('input.path_fields="{site}/{name}"',)).input.path_fields == "{site}/{name}"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nope\.yaml: no such config file"):
        load_config(tmp_path / "nope.yaml")


def test_secrets_are_neither_in_the_redacted_config_nor_in_messages():
    data = copy.deepcopy(MINIMAL)
    data["input"] = {
        "uris": ["https://me:hunter2@host/a.mp4?X-Amz-Signature=hunter2"],
        "storage_options": {"key": "hunter2", "client_kwargs": {"aws_secret_access_key": "hunter2"}},
    }
    data["output"] = {"uri": "s3://hunter2@bucket/x", "storage_options": {"token": "hunter2"}}
    assert "hunter2" not in str(parse_config(data).redacted())
    data["input"]["storage_options"] = "hunter2"
    with pytest.raises(ConfigError) as caught:
        parse_config(data)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["{secret: hunter2", "hunter2}", "{key: [hunter2"])
def test_a_malformed_override_of_secrets_does_not_print_them(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text("dataset: d\n")
    for key in ("input.storage_options", "output.storage_options.secret", "input.uris"):
        with pytest.raises(ConfigError) as caught:
            load_config(path, (f"{key}={text}",))
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["demo.yaml", "s3.yaml"])
def test_shipped_configs_are_valid(name):
    assert isinstance(load_config(REPOSITORY / "configs" / name), Config)


def test_demo_yaml_is_what_featray_demo_runs():
    written = load_config(REPOSITORY / "configs" / "demo.yaml")
    built = demo_config(Path("featray/demo_clips"), "/tmp/featray-demo")
    assert written == built


def test_a_signed_address_of_boxes_is_not_printed():
    signed = "https://me:pw@host/b.parquet?X-Amz-Signature=abc"
    redacted = parse_config(with_value("detect", {"detector": "boxes", "boxes": signed})).redacted()
    assert redacted["detect"]["boxes"] == "https://host/b.parquet"
