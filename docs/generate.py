"""Write the generated pages of docs/reference: configuration, command line, tables, errors, metrics.

`make docs` runs this before it builds the site; a test checks that the committed pages are up to date.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from featray.cli import main
from featray.cli.show import schema_markdown
from featray.cli.summary import LOG_LINE
from featray.config import Config
from featray.errors import ERROR_FIXES, ERROR_MEANINGS, RETRYABLE, ErrorCode
from featray.graph import metrics
from featray.tables.summary import AVERAGED, SUMMED, TECHNICAL

REFERENCE = Path(__file__).parent / "reference"
_WRITTEN = "<!-- Written by docs/generate.py from the code; `make docs` renews it. -->"


def pages() -> dict[str, str]:
    """Return the Markdown of each generated page, by file name."""
    return {
        "configuration.md": configuration(),
        "cli.md": command_line(),
        "tables.md": f"{schema_markdown(None).rstrip()}\n\n{summary()}",
        "errors.md": errors(),
        "metrics.md": exported_metrics(),
    }


def configuration() -> str:
    """Return the page with every config key: type, default, meaning."""
    parts = [
        "# Configuration",
        _WRITTEN,
        "A config is a YAML file. All keys except `dataset`, `input.uris` and `output.uri` have a default. Unknown and "
        "repeated keys are refused. `--set section.key=value` overrides a key on the command line. "
        "[configs/s3.yaml](https://github.com/featray/featray/blob/main/configs/s3.yaml) is a commented file with all "
        "keys.",
        "## dataset",
        _described(Config)["dataset"],
    ]
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            parts += _section(name, field.annotation, level=2)
    return "\n\n".join(parts) + "\n"


def _section(path: str, model: type[BaseModel], *, level: int) -> list[str]:
    schema = model.model_json_schema()
    described = _described(model)
    parts = [f"{'#' * level} {path}", inspect.getdoc(model) or ""]
    rows: list[str] = []
    nested: dict[type[BaseModel], list[str]] = {}
    for name, field in model.model_fields.items():
        inner = list(_models(field.annotation))
        for one in inner:
            nested.setdefault(one, []).append(f"{path}.{name}")
        meaning = described[name] if name in described or not inner else "See below."
        default = "required" if field.is_required() else f"`{_yaml(field.default)}`"
        if any(isinstance(field.default, one) and field.default == _all_defaults(one) for one in inner):
            default = "as below"
        rows.append(f"| `{name}` | {_type(schema['properties'][name], schema)} | {default} | {meaning} |")
    parts.append(_table("key | type | default | meaning", rows))
    for one, names in nested.items():
        key = f".{next(iter(one.model_fields))}" if len(one.model_fields) == 1 else ""
        parts += _section(", ".join(names) + key, one, level=level + 1)
    return parts


def _all_defaults(model: type[BaseModel]) -> BaseModel | None:
    return None if any(field.is_required() for field in model.model_fields.values()) else model()


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models(inner)


def _described(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstring of each attribute of a class and its parents, in one line each."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not issubclass(cls, BaseModel) or cls is BaseModel:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for before, after in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(before, ast.AnnAssign)
                and isinstance(before.target, ast.Name)
                and isinstance(after, ast.Expr)
            ):
                found[before.target.id] = _cell(inspect.cleandoc(ast.literal_eval(after.value)))
    return found


def _type(schema: dict[str, Any], root: dict[str, Any]) -> str:
    if "$ref" in schema:
        return "section" if len(root["$defs"][schema["$ref"].rpartition("/")[2]]["properties"]) > 1 else "mapping"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(one, root) for one in schema["anyOf"]))
    if "allOf" in schema:
        return _type(schema["allOf"][0], root)
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kind = {"null": "`null`", "boolean": "bool", "array": "list", "object": "mapping"}.get(
        schema.get("type", ""), schema.get("type", "any")
    )
    if schema.get("type") == "array" and "items" in schema:
        kind = f"list of {_type(schema['items'], root)}"
    bounds = {"minimum": "≥ ", "exclusiveMinimum": "> ", "maximum": "≤ ", "exclusiveMaximum": "< "}
    said = [f"{sign}{schema[key]:,}".replace(",", " ") for key, sign in bounds.items() if key in schema]
    return kind + (f" {', '.join(said)}" if said else "")


def _yaml(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "{" + ", ".join(f"{key}: {_yaml(inner)}" for key, inner in value.model_dump(mode="json").items()) + "}"
    return value if isinstance(value, str) else json.dumps(value).replace('"', "")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def command_line() -> str:
    """Return the page with every command, its help and its options."""
    parts = ["# Command line", _WRITTEN, "`featray COMMAND --help` prints the same."]
    for path, command in _commands(main, ["featray"]):
        parts += _command(path, command)
    parts += ["## The line for logs", _LOG_LINE]
    parts.append(_table("field | meaning", [f"| `{name}` | {_cell(meaning)} |" for name, meaning in LOG_LINE.items()]))
    return "\n\n".join(parts) + "\n"


_LOG_LINE = (
    "`featray run --log-line` and `jobs/reprocess.py` print these fields as JSON on one line. With `--part`, `status`, "
    "`deleted`, `dropped`, `passed_over` and `several_streams` are absent."
)


def _commands(group: click.Group, path: list[str]) -> Iterator[tuple[list[str], click.Command]]:
    for name in sorted(group.commands):
        command = group.commands[name]
        yield [*path, name], command
        if isinstance(command, click.Group):
            yield from _commands(command, [*path, name])


def _command(path: list[str], command: click.Command) -> list[str]:
    context = click.Context(command, info_name=path[-1])
    usage = " ".join([*path, *command.collect_usage_pieces(context)])
    parts = [f"{'#' * len(path)} {' '.join(path)}", f"```text\n{usage}\n```", *_help(command.help or "")]
    rows = []
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None and record[1]:
            rows.append(f"| `{_cell(record[0])}` | {_cell(record[1]).replace('<', '&lt;')} |")
    return [*parts, *([_table("option | meaning", rows)] if rows else [])]


def _help(text: str) -> Iterator[str]:
    """Yield paragraphs; those that click does not rewrap (preceded by a line with \\b) become code."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b\n"):
            yield f"```text\n{textwrap.dedent(paragraph[2:])}\n```"
        else:
            yield paragraph.replace("<", "&lt;")


def errors() -> str:
    """Return the page with every error code: meaning, whether it is retried, what to do."""
    rows = [
        f"| `{code}` | {ERROR_MEANINGS[code]} | {'yes' if code in RETRYABLE else ''} | {ERROR_FIXES[code]} |"
        for code in ErrorCode
    ]
    head = (
        "Each failed video or unit is a row of the table `errors`, with one of these codes:\n"
        '`featray query OUT "SELECT error_code, count(*) FROM errors GROUP BY ALL"`. The list is closed. A unit whose '
        "code is marked *retried* is tried `run.max_attempts` times within a run, and again with `--retry-failed`."
    )
    return "\n\n".join(["# Error codes", _WRITTEN, head, _table("code | meaning | retried | what to do", rows)]) + "\n"


def exported_metrics() -> str:
    """Return the page with every metric that a run on Ray exports."""
    found = sorted((m for m in vars(metrics).values() if isinstance(m, metrics.Metric)), key=lambda m: m.name)
    rows = [
        f"| `{metric.exported[0]}` | {metric.kind} | {metric.unit} | {', '.join(f'`{tag}`' for tag in metric.tags)} "
        f"| {_cell(metric.description)} |"
        for metric in found
    ]
    head = (
        "Ray exports these from every node, for Prometheus, every ten seconds; the local executor exports none. For a "
        "histogram the row names the buckets; there are also `_sum` and `_count`. "
        "[infra/grafana](https://github.com/featray/featray/tree/main/infra/grafana) has a dashboard that draws them."
    )
    return "\n\n".join(["# Metrics", _WRITTEN, head, _table("metric | kind | unit | tags | meaning", rows)]) + "\n"


def summary() -> str:
    """Return the section about the view `summary`, whose columns are those of tables."""
    plain = [name for name in SUMMED if not name.endswith("_episodes")]
    others = [name for name in AVERAGED if not name.endswith(("_mean", "_active"))]
    rows = [
        "| those of your manifest | as text; `extra_<name>` if a table has a column of that name |",
        f"| those of `videos` | without {_names(TECHNICAL)} |",
        "| those of `tracks`, and `person_id` | of the main track: the first of those with the most `seen_s` |",
        f"| `all_<name>` of {_names(plain)} and each `*_episodes` | sum over all tracks of the video |",
        "| `all_blinks_per_min` | blinks of all tracks per minute of `seen_s` |",
        f"| `all_<name>` of {_names(others)}, each `*_mean` and each `*_active` "
        "| mean over all tracks, weighted by `seen_s` |",
    ]
    head = (
        "One row per video, with or without faces: the view for statistics packages, in `featray query`, "
        "`featray.open` and `featray export --summary`. Episodes per minute are `60 * <name>_episodes / seen_s`."
    )
    return "\n\n".join(["## summary", head, _table("columns | meaning", rows)]) + "\n"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(columns: str, rows: list[str]) -> str:
    return "\n".join([f"| {columns} |", "| --- " * (columns.count("|") + 1) + "|", *rows])


if __name__ == "__main__":
    REFERENCE.mkdir(exist_ok=True)
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, encoding="utf-8")
