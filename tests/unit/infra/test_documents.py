"""The text of infra/ and its guides: every error, command, path and setting in it exists."""

import re
import shlex

import click
import pytest
import yaml
from pydantic import BaseModel

from featray.cli import main
from featray.config import Config, load_config
from tests.fixtures.infra_files import INFRA, REPOSITORY

DOCUMENTS = sorted([*INFRA.rglob("*.md"), *(REPOSITORY / "docs").rglob("*.md"), REPOSITORY / "README.md"])
FILES = sorted(
    path
    for path in INFRA.rglob("*")
    if path.is_file() and path.suffix not in (".jpg", ".json", ".py", ".pyc") and path.stat().st_size
)
DOCS = REPOSITORY / "docs"
ids = {"ids": lambda path: str(path.relative_to(REPOSITORY))}


def section(page, title):
    return (DOCS / page).read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_every_exit_status_is_explained():
    cells = re.findall(r"^\| ([\d, ]+) \|", section("explanation/guarantees.md", "Exit status"), re.MULTILINE)
    assert ", ".join(cells) == "0, 1, 2, 3, 129, 130, 143"


def test_what_runs_are_said_to_say_is_what_the_code_says():
    source = " ".join(path.read_text() for path in (REPOSITORY / "featray").rglob("*.py"))
    source = re.sub(r'"\s+f?"', "", source)  # strings that continue on the next line
    rows = [
        line.split("|")[1]
        for line in section("guides/operating.md", "Errors of runs").splitlines()
        if line.startswith("| ")
    ]
    quoted = [part for row in rows for text in re.findall(r"`([^`]+)`", row) for part in text.split("...")]
    assert len(quoted) > 8
    for part in quoted:
        settings = re.fullmatch(r"\s*(engine|precision): auto\s*", part)
        assert settings or part.strip() in source, part


def commands(text):
    """Yield the words after `featray` in the code of a page."""
    code = re.findall(r"```sh\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text)
    joined = "\n".join(code).replace("\\\n", " ")
    for line in joined.splitlines():
        if match := re.match(r"(?:docker .* )?featray ([a-z].*)", line):
            yield match[1].split(" && ")[0]


def check_command(words):
    """Check that these words after `featray` are a command, and that it has the options."""
    text, words = shlex.join(words), list(words)
    command: click.Command = main
    while words and isinstance(command, click.Group):
        name = words.pop(0)
        assert name in command.commands, f"featray {text}"
        command = command.commands[name]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known, f"featray {text}"


def _words(text):
    try:
        return shlex.split(text)
    except ValueError:  # a quoted string that continues on the next line
        return text.split()


@pytest.mark.parametrize("path", DOCUMENTS, **ids)
def test_commands_exist(path):
    for text in commands(path.read_text()):
        check_command(_words(text.split("#")[0]))


def test_commands_in_manifests_exist():
    """Commented lines count too, because users uncomment them."""
    aws = re.findall(r"^  (?:# )?- featray (.*)$", (INFRA / "ray/aws.yaml").read_text(), re.MULTILINE)
    assert len(aws) == 2
    for text in aws:
        check_command(shlex.split(text))
    pull = re.search(r"- featray\n((?: +(?:# )?- .*\n)+)", (INFRA / "kuberay/job/rayjob.yaml").read_text())[1]
    words = re.findall(r"- (.*)", pull)
    assert words == ["models", "list", "pull", "v2.8", "--no-check", "--accept-license=research-noncommercial"]
    check_command(words[:2])
    check_command([words[0], *words[2:]])


def test_the_commands_of_the_guides_were_found():
    found = {text.split()[0] for page in DOCUMENTS for text in commands(page.read_text())}
    assert len(found) >= 15


@pytest.mark.parametrize("path", DOCUMENTS, **ids)
def test_links_lead_somewhere(path):
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", path.read_text())]
    for link in filter(None, links):
        assert link.startswith("https://") or (path.parent / link).exists(), link


@pytest.mark.parametrize("path", FILES, **ids)
def test_paths_in_the_repository_exist(path):
    pattern = r"(?<![\w/.:-])(?:infra|jobs|configs|featray|tests)/[\w./-]*\w"
    whole = re.sub(r"\S*\$\{\S*", "", path.read_text())  # without paths that a variable completes
    for name in re.findall(pattern, whole):
        assert (REPOSITORY / name).exists() or name == "featray/featray", name


@pytest.mark.parametrize("path", FILES, **ids)
def test_settings_exist(path):
    for section_name, key in re.findall(r"(?<![\w/.-])([a-z]+)\.([a-z_]+)\b(?!\()", path.read_text()):
        model = Config.model_fields.get(section_name)
        if model is None or not hasattr(model.annotation, "model_fields") or f"{section_name}.{key}" in _FILES:
            continue
        assert key in model.annotation.model_fields, f"{section_name}.{key}"


_FILES = {"model.py", "model.safetensors", "run.sbatch"}


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("configs/*.yaml")), **ids)
def test_example_configs_are_valid(path):
    assert load_config(path).dataset


def test_the_commented_config_has_every_setting_with_its_default():
    text = (REPOSITORY / "configs/s3.yaml").read_text()
    all_in = yaml.safe_load(re.sub(r"^( *)# ?(?=( *)[a-z0-9_]+:( |$))", r"\1", text, flags=re.MULTILINE))
    assert all_in.keys() == Config.model_fields.keys()
    for section_name, settings in all_in.items():
        if section_name == "dataset":
            continue
        fields = Config.model_fields[section_name].annotation.model_fields
        assert settings.keys() == fields.keys(), section_name
        for key, value in settings.items():
            if key not in ("uris", "path_fields", "uri", "checkpoint", "accept_license"):
                default = fields[key].default
                plain = default.model_dump() if isinstance(default, BaseModel) else default
                assert value == plain, f"{section_name}.{key}"


def test_nothing_is_named_that_only_exists_elsewhere():
    for path in FILES:
        assert not re.search(r"(?<!\w)/(work|root)/|pypi\.org|download\.pytorch", path.read_text()), path
