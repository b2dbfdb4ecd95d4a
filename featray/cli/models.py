"""Command line. `featray models`: fetch weights, inspect checkpoints, check their columns, make synthetic ones.

Imported by the command line at every start, so only click is imported here at the top.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featray.cli.models_check import check, check_pulled, find_checkpoint
from featray.errors import ModelError, UsageError, counted, printable

if TYPE_CHECKING:
    from featray.faces.detector import KnownFile
    from featray.faces.weights import FaceWeights
    from featray.model.checkpoint import Checkpoint
    from featray.model.config import CheckpointConfig

_SUFFIX = ".safetensors"
_PINNED_OR_MAIN = "[default: the revision that featray pins, else main]"


@click.group(short_help="Fetch, inspect and check checkpoints and detectors' weights.")
def models() -> None:
    """Fetch checkpoints and detectors' weights, inspect checkpoints, check their columns, make synthetic ones.

    \b
    featray models list
    """


models.add_command(check)


@models.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_command(as_json: bool) -> None:
    """List the published checkpoints, the weights of face detectors, and what has been pulled.

    \b
    featray models list
    """
    from featray.config import cache_dir
    from featray.faces.embedder_weights import EMBEDDER_WEIGHTS
    from featray.faces.weights import DETECTOR_WEIGHTS
    from featray.model.known import KNOWN_CHECKPOINTS
    from featray.weights.hub import list_pulled

    pulled = list_pulled(cache_dir())
    specs = {record.spec for record, _ in pulled}
    if as_json:
        named = [(known.name, known.spec, known.license) for known in KNOWN_CHECKPOINTS]
        others = (DETECTOR_WEIGHTS | EMBEDDER_WEIGHTS).items()
        named += [(name, weights.hub_file.spec, weights.license) for name, weights in others]
        found = {
            "published": [
                {"name": name, "spec": spec, "license": license, "pulled": spec in specs}
                for name, spec, license in named
            ],
            "pulled": [{**asdict(record), "spec": record.spec, "path": str(path)} for record, path in pulled],
            "cache": str(cache_dir()),
        }
        click.echo(json.dumps(found, indent=2))
        return
    click.echo("Published:")
    for known in KNOWN_CHECKPOINTS:
        here = "pulled" if known.spec in specs else "not pulled"
        click.echo(f"  {known.name}")
        click.echo(f"      {known.description}; license {known.license}; {known.pinned}; {here}")
        click.echo(f"      {known.spec}")
    _list_others("Face detectors", DETECTOR_WEIGHTS, specs)
    _list_others("Face embedders (identify.embedder)", EMBEDDER_WEIGHTS, specs)
    click.echo(f"Pulled, in {cache_dir()}:" if pulled else f"Nothing pulled, in {cache_dir()}")
    for record, path in pulled:
        click.echo(f"  {record.spec}")
        click.echo(f"      asked for {record.requested_revision}, pinned to revision {record.revision}")
        click.echo(f"      sha256 {record.sha256}; license {record.license}; pulled {record.pulled_at[:10]}")
        click.echo(f"      {path}")


def _list_others(what: str, known: Mapping[str, FaceWeights], specs: set[str]) -> None:
    click.echo(f"{what} that do not ship with featray:")
    for name, weights in known.items():
        here = "pulled" if weights.hub_file.spec in specs else "not pulled"
        click.echo(f"  {name}")
        click.echo(f"      {weights.description}; {weights.size_mb} MB; license {weights.license}; {here}")
        click.echo(f"      {weights.hub_file.spec}")


@models.command()
@click.argument("spec")
@click.option("--revision", help=f"Branch, tag or commit on the hub. {_PINNED_OR_MAIN}")
@click.option("--sha256", help="Hex digest that the file must have.")
@click.option("--accept-license", metavar="LICENSE", help="Name of the weights' licence, to accept it.")
@click.option(
    "--check/--no-check", "with_check", default=True, help="Also check once that its columns mean what they say."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def pull(
    spec: str, revision: str | None, sha256: str | None, accept_license: str | None, with_check: bool, as_json: bool
) -> None:
    """Fetch SPEC and check it: v2.8, v2.7 or v2.5, hf://owner/repository/file.safetensors, or another name of `list`.

    A pulled file is then used without network access. HF_ENDPOINT and HF_TOKEN are respected.

    \b
    featray models pull v2.8 --accept-license research-noncommercial
    featray models pull retinaface-r34
    featray models pull arcface-r50 --accept-license research-noncommercial
    """
    from featray.config import cache_dir
    from featray.faces.embedder_weights import EMBEDDER_WEIGHTS, pull_embedder
    from featray.faces.weights import DETECTOR_WEIGHTS, pull_weights
    from featray.model.known import KNOWN_CHECKPOINTS
    from featray.model.source import checked_sha256, is_on_hub, resolve_checkpoint

    pulled: Checkpoint | KnownFile
    checkpoint: Checkpoint | None = None
    if spec in DETECTOR_WEIGHTS:
        pulled = pull_weights(spec, revision=revision, sha256=checked_sha256(sha256), cache_dir=cache_dir())
    elif spec in EMBEDDER_WEIGHTS:
        digest = checked_sha256(sha256)
        pulled = pull_embedder(
            spec, revision=revision, sha256=digest, accept_license=accept_license, cache_dir=cache_dir()
        )
    elif is_on_hub(spec):
        pulled = checkpoint = resolve_checkpoint(
            spec, revision=revision, sha256=sha256, accept_license=accept_license, cache_dir=cache_dir()
        )
    else:
        names = ", ".join([*(known.name for known in KNOWN_CHECKPOINTS), *DETECTOR_WEIGHTS, *EMBEDDER_WEIGHTS])
        raise UsageError(f"{spec}: cannot be pulled; give hf://owner/repository/file.safetensors, or one of {names}")
    facts: list[tuple[str, object]] = [
        ("path", pulled.path),
        ("sha256", pulled.sha256),
        ("revision", pulled.revision),
    ]
    if checkpoint is not None and with_check:
        facts.append(("check", check_pulled(checkpoint, spec)))
    _tell(facts, as_json)


@models.command()
@click.argument("spec")
@click.option("--revision", help=f"Branch, tag or commit at which an hf:// file was pulled. {_PINNED_OR_MAIN}")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(spec: str, revision: str | None, as_json: bool) -> None:
    """Describe the checkpoint SPEC: a path, a pulled v2.8 or hf://..., or synthetic[:variant].

    \b
    featray models inspect synthetic:v28
    """
    from featray.model.known import recognise

    checkpoint = find_checkpoint(spec, revision)
    config, recognised = checkpoint.config, recognise(checkpoint, spec)
    known = recognised.known
    facts: list[tuple[str, object]] = [("path", checkpoint.path), ("sha256", checkpoint.sha256)]
    facts += [("revision", checkpoint.revision)] if checkpoint.revision else []
    facts += [
        ("license", checkpoint.license),
        ("trained", checkpoint.weights_trained),
        ("recognised", recognised.how),
        ("conventions", recognised.conventions.text),
        *(("unusable", f"{name}: {why.says} [{why.source}]") for name, why in recognised.unusable.items()),
        *(("meaning", f"{fact.says} [{fact.source}]") for fact in (known.facts if known else ())),
        *(("rests on", f"{fact.says} [{fact.source}]") for fact in (known.licence_facts if known else ())),
        ("parameters", checkpoint.num_parameters),
        *(("head", head) for head in _heads(config)),
        ("config", config.model_dump(mode="json")),
    ]
    _tell(facts, as_json)


@models.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--variant", help="A published head version: v25 (the default), v28, v24, v26headframe, v23mefl; or atto."
)
@click.option(
    "--config", "config_json", metavar="JSON", help="A model config instead: JSON, or a file that contains it."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random weights.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def synth(out: Path, variant: str | None, config_json: str | None, seed: int, as_json: bool) -> None:
    """Write a checkpoint with synthetic weights to OUT, a .safetensors file.

    It has the size and structure of a real checkpoint; its numbers carry no meaning.

    \b
    featray models synth v28.safetensors --variant v28 --seed 7
    """
    from featray.model.checkpoint import read_checkpoint
    from featray.model.synth import write_synthetic

    if out.suffix != _SUFFIX:
        raise UsageError(f"{out}: not a checkpoint's name; end it in {_SUFFIX}")
    if out.exists():
        raise UsageError(f"{out}: exists already; delete it or choose another name")
    write_synthetic(out, config=_synthetic_config(variant, config_json), seed=seed)
    checkpoint = read_checkpoint(out)
    facts = [("path", checkpoint.path), ("sha256", checkpoint.sha256), ("parameters", checkpoint.num_parameters)]
    _tell(facts, as_json)


def _synthetic_config(variant: str | None, config_json: str | None) -> CheckpointConfig:
    from featray.model.config import config_from_json
    from featray.model.synth import DEFAULT_VARIANT, SYNTHETIC_VARIANTS

    if config_json is None:
        variant = variant or DEFAULT_VARIANT
        if variant not in SYNTHETIC_VARIANTS:
            known = ", ".join(SYNTHETIC_VARIANTS)
            raise UsageError(f"--variant: there is no synthetic variant {variant!r}; choose one of {known}")
        return SYNTHETIC_VARIANTS[variant]
    if variant is not None:
        raise UsageError("--variant and --config: both are given; give only one")
    if not config_json.lstrip().startswith("{"):
        try:
            config_json = Path(config_json).read_text()
        except (OSError, ValueError) as error:
            raise UsageError(f"--config: {config_json[:100]!r} is neither JSON nor a readable file") from error
    try:
        return config_from_json(config_json, source="--config")
    except ModelError as error:
        raise UsageError(str(error), **error.details) from None


def _heads(config: CheckpointConfig) -> list[str]:
    """Return the network's heads, one phrase each."""
    mesh = "shares of the chip" if config.mesh_normalized else "pixels of the 224-pixel image"
    heads = [
        f"action units: {config.n_au}, {'without' if config.drop_mefl else 'with'} MEFL",
        f"emotions: {config.n_emotion}, with valence and arousal",
        f"gaze: {', '.join(_gaze(config)) or 'plain'}",
        "head pose: 6 numbers",
        f"mesh: {config.n_mesh} vertices in {mesh}",
    ]
    return heads + ([f"blendshapes: {config.n_blendshape}"] if config.n_blendshape else [])


def _gaze(config: CheckpointConfig) -> list[str]:
    options = {
        "eye regions": config.gaze_eye_roi,
        "6D pose": config.gaze_pose_6d,
        "head frame": config.gaze_head_frame,
        f"hidden layer of {config.gaze_hidden}": config.gaze_hidden,
        counted(config.gaze_bins, "bin"): config.gaze_bins,
    }
    return [name for name, used in options.items() if used]


_LISTS = ("unusable", "meaning", "rests on", "head")
"""Facts that may occur several times."""


def _tell(facts: Iterable[tuple[str, object]], as_json: bool) -> None:
    """Print facts, one per line, or as one JSON object."""
    if not as_json:
        for name, value in facts:
            for text in _in_words(name, value):
                click.echo(printable(f"{name:<12} {text}"))
        return
    found: dict[str, Any] = {}
    for name, value in facts:
        if name in _LISTS:
            found.setdefault(name.replace(" ", "_"), []).append(value)
        else:
            found[name] = str(value) if isinstance(value, Path) else value
    click.echo(json.dumps(found, indent=2))


def _in_words(name: str, value: object) -> list[str]:
    if isinstance(value, dict):
        return [f"{key}: {str(one).lower() if isinstance(one, bool) else one}" for key, one in value.items()]
    if name == "trained":
        return ["yes" if value else "no; synthetic weights, their numbers carry no meaning"]
    return [f"{value:,}" if isinstance(value, int) else str(value)]
