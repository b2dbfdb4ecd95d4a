"""The files of infra/ as data."""

from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[3]
INFRA = REPOSITORY / "infra"

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
"""What everything that starts featray or Ray has in its environment."""


def documents(path: str) -> list[dict]:
    """The YAML documents of a file below infra/."""
    return list(yaml.safe_load_all((INFRA / path).read_text()))


def document(path: str, kind: str) -> dict:
    """The one Kubernetes object of this kind in a file."""
    (found,) = (d for d in documents(path) if d["kind"] == kind)
    return found


def instructions(stage: int | None = None) -> list[tuple[str, str]]:
    """The Dockerfile's instructions, or those of one of its stages: keyword and text, lines joined."""
    lines = [line for line in (INFRA / "docker/Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]
    starts = [i for i, (keyword, _) in enumerate(found) if keyword == "FROM"] + [len(found)]
    return found if stage is None else found[starts[:-1][stage] : starts[starts.index(starts[:-1][stage]) + 1]]


def image_environment() -> dict[str, str]:
    """What ENV sets in the image."""
    text = " ".join(text for keyword, text in instructions(-1) if keyword == "ENV")
    return dict(pair.split("=", 1) for pair in text.split())


def locked() -> dict[str, str]:
    """constraints.txt: canonical name to version."""
    from packaging.utils import canonicalize_name

    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins}
