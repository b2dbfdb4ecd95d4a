"""Values of `--storage-option KEY=VALUE`: JSON is parsed, text is kept, secrets are always text and never shown."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.cli.storage_flags import parse_storage_options, read_storage_flags
from featray.errors import UsageError
from featray.sources.places import SourceOptions


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("endpoint_url=http://minio:9000?a=b", "http://minio:9000?a=b"),
        ("anon=true", True),
        ("connection_timeout=30", 30),
        ("version=1.5", 1.5),
        ("cache=null", None),
        ('client_kwargs={"region_name": "eu-west-1"}', {"region_name": "eu-west-1"}),
        ("region=no", "no"),  # false in YAML
        ("region=", ""),
        ("ratio=NaN", "NaN"),
        # Values that may be a secret or a name are not parsed.
        ("key=0123", "0123"),
        ("secret=12e4", "12e4"),
        ("secret=true", "true"),
        ("secret={hunter2", "{hunter2"),
        ("account_key=123", "123"),
        ("tenant_id=123", "123"),
        ('secret="a b"', "a b"),
        ('token={"type": "service_account"}', {"type": "service_account"}),
    ],
)
def test_values(pair, value):
    (found,) = parse_storage_options((pair,)).values()
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "pair", ["hunter2", "=hunter2", "client_kwargs={secret: hunter2}", "x=[hunter2", f"x={'[' * 5000}"], ids=range(5)
)
def test_what_is_malformed_is_refused_and_not_shown(pair):
    with pytest.raises(UsageError, match="--storage-option") as caught:
        parse_storage_options((pair,))
    assert "hunter2" not in str(caught.value)


def test_the_command_line_goes_before_the_config(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "dataset: d\n"
        "input: {uris: [a], storage_options: {key: of_input, anon: false}}\n"
        "output: {uri: b, storage_options: {key: of_output}}\n"
    )
    assert read_storage_flags(path, ()) == (
        SourceOptions({"key": "of_input", "anon": False}, ("a",)),
        {"key": "of_output"},
    )
    assert read_storage_flags(path, ("key=1",)) == (SourceOptions({"key": "1", "anon": False}, ("a",)), {"key": "1"})
    assert read_storage_flags(None, ("key=1",)) == (SourceOptions({"key": "1"}), {"key": "1"})


@pytest.mark.parametrize(
    "name",
    "status query report diff evaluate preview export verify erase publish compact".split(),
)
def test_every_command_that_reads_an_output_takes_both(name):
    told = CliRunner().invoke(main, [name, "--help"]).output
    assert "--storage-option KEY=VALUE" in told and "--config PATH" in told
