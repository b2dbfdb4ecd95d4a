"""Configs whose author means harm cost one error of a bounded length, and a bounded time."""

import pytest
import yaml

from featray.config import load_config, parse_config
from featray.config_text import MOST_CHARS
from featray.errors import ConfigError
from featray.tables.provenance import WeightsFacts, read_config, run_row
from featray.upkeep.erase_edits import forget_uri

MINIMAL = "dataset: d\ninput: {uris: [a.mp4]}\noutput: {uri: out}\n"
HUGE = "0x" + "f" * 9000
"""A number that PyYAML reads, but of which Python refuses to print the digits."""


def problem_of(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / "c.yaml")
    return str(error.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (HUGE, "64 bits"),
        (f"-{HUGE}", "64 bits"),
        (f"[{{a: {HUGE}}}]", "64 bits"),
        (":".join(["59"] * 2000), "64 bits"),
        ("!!int ''", "put it in quotes"),
        ("!!float ''", "put it in quotes"),
        ("[" * 200 + "]" * 200, "nested too deeply"),
    ],
)
@pytest.mark.parametrize("key", ["decode: {unit_frames: %s}", "detect: {boxes: %s}", "? %s\n: 1", "x: {a: {? %s : 1}}"])
def test_a_value_that_cannot_be_printed_is_refused(tmp_path, key, value, expected):
    if value.startswith("[") and not key.startswith(("decode", "detect")):
        pytest.skip("a list is no key")
    assert expected in problem_of(tmp_path, MINIMAL + key.replace("%s", value))


def test_a_huge_number_in_storage_options_is_refused(tmp_path):
    text = MINIMAL.replace("a.mp4]", f"a.mp4], storage_options: {{retries: {HUGE}}}")
    assert "64 bits" in problem_of(tmp_path, text)


def test_bytes_in_storage_options_can_be_stored(tmp_path):
    text = MINIMAL.replace("a.mp4]", "a.mp4], storage_options: {header: !!binary /////w==}")
    (tmp_path / "c.yaml").write_text(text)
    assert yaml.safe_dump(load_config(tmp_path / "c.yaml").redacted())


@pytest.mark.parametrize("twice", [False, True])
def test_a_key_with_a_line_break_adds_no_line(tmp_path, twice):
    found = problem_of(tmp_path, MINIMAL + '"x\\nfeatray: all done": 1\n' * (1 + twice))
    assert "\n" not in found
    assert r"x\nfeatray: all done" in found


def test_a_tag_with_a_line_break_adds_no_line(tmp_path):
    assert "\n" not in problem_of(tmp_path, MINIMAL + "a: !<x%0afeatray> 1\n")


@pytest.mark.parametrize(
    "text", ["? %s\n: 1\n", "decode: {unit_frames: %s}\n", "decode: {sample: %s}\n", "a: !<%s> 1\n"]
)
def test_what_is_shown_of_a_config_is_short(tmp_path, text):
    assert len(problem_of(tmp_path, MINIMAL + text.replace("%s", "x" * 10_000))) < 1000


def test_thousands_of_problems_are_not_all_told(tmp_path):
    *_, last = problem_of(tmp_path, MINIMAL + "".join(f"unit_frame{i}: 1\n" for i in range(300))).split("\n")
    assert last == "  and 280 more"


def test_a_config_without_end_is_refused(tmp_path):
    (tmp_path / "c.yaml").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="more than"):
        load_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("value", [HUGE, "!!int ''", "!!float ''", "[" * 200 + "]" * 200])
def test_a_hostile_config_in_an_output_is_not_a_config(value):
    text = f"{MINIMAL}decode: {{unit_frames: {value}}}\n"
    with pytest.raises(ValueError, match="is not a config"):
        read_config(text)
    assert forget_uri(text, {"file:///a.mp4"}, "0" * 16) == ""


@pytest.mark.timeout(60)  # read as nodes, each takes minutes to hours
@pytest.mark.parametrize(
    "text", ["[" * 4_000_000, "- " * 4_000_000, "{" * 8_000_000, "a: [" + "1," * 3_999_000 + "]", "---\n" * 1_900_000]
)
def test_a_config_of_millions_of_values_is_refused_at_once(tmp_path, text):
    assert "nested too deeply" in (found := problem_of(tmp_path, text)) or "more than 100,000 values" in found
    with pytest.raises(ValueError, match="is not a config"):
        read_config(text)


def stored(uris):
    weights = WeightsFacts("m", "m", "0" * 64, None, "MIT", False, "py-feat-2.1.2", "")
    config = parse_config({"dataset": "d", "input": {"uris": uris}, "output": {"uri": "out"}})
    facts = {"engine": "torch", "precision": "fp32", "settings": {"detector": "0"}}
    return run_row(config, run_id="0", release="r", weights=weights, **facts)["config"]


def test_a_config_of_many_long_names_is_read_back():
    uris = [f"s3://bucket/{'folder/' * 12}{i:06}.mp4" for i in range(60_000)]
    assert MOST_CHARS / 2 < len(text := stored(uris)) < MOST_CHARS
    assert read_config(text).uris == uris


def test_a_config_that_could_not_be_read_back_starts_no_run():
    uris = [f"s3://bucket/{'папка/' * 20}{i}.mp4" for i in range(12_000)]  # short in the file, long as ASCII
    with pytest.raises(ConfigError, match="list the videos in a manifest"):
        stored(uris)
