"""Report. Render the report as one HTML page with numbers, plots and thumbnails."""

from __future__ import annotations

import base64
import shlex
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, Final

from featray.errors import counted, printable
from featray.redaction import redact_uri
from featray.report.diff import Diff, diff_releases
from featray.report.distributions import MEASURED, Distribution, read_distributions
from featray.report.happened import read_happened
from featray.report.moments import MOMENTS, Moment, Moments, read_moments
from featray.report.numbers import EXAMPLES, read_numbers
from featray.report.plots import Plot, plot_coverage, plot_distributions, plot_faces_per_frame
from featray.report.scope import MOST_ROWS, Scope, with_scope
from featray.sources.places import SourceOptions
from featray.store.location import locate_beside
from featray.store.storage import write_bytes
from featray.tables.layout import Output
from featray.version import __version__
from featray.views.times import clock_text

_COMPARED_FACES: Final = 1_000_000
"""Maximum faces of the previous release for the section on shifts; `featray diff` compares more."""

_COLUMNS: Final = {"action units": 5, "emotions": 4, "valence and arousal": 3}
_NOTES: Final = {
    "action units": "Probabilities that the unit is active, as FACS coders mark it; not intensities.",
    "emotions": "Shares of seven categories, which sum to 1 for every face.",
    "valence and arousal": "From -1 to 1.",
    "gaze": "Radians. Gaze is least certain on turned heads; check head pose too.",
    "head pose": "Radians.",
    MEASURED: "From the picture and the detector, not the network. Blurred pictures have low sharpness.",
}


@dataclass(frozen=True)
class ReportSettings:
    """Settings of a report.

    Attributes:
        release, dataset: None for the latest release, and for the only dataset.
        thumbnails: whether sources are opened for pictures.
        blur: hide heads, and leave out names of files, path fields and local paths.
        source_options: storage options for reading sources.
        most_rows: with more rows in `faces` or `frames`, a sample is read.
    """

    release: str | None = None
    dataset: str | None = None
    thumbnails: bool = True
    blur: bool = False
    source_options: SourceOptions = field(default_factory=SourceOptions)
    most_rows: int = MOST_ROWS


@dataclass(frozen=True)
class Made:
    """A written report: its release, size and contents."""

    dataset: str
    release: str
    size_bytes: int
    weights_trained: bool
    unusable: tuple[str, ...]
    thumbnails: int
    moments: int


def write_report(output: Output, path: str, settings: ReportSettings) -> Made:
    """Write one self-contained HTML file.

    Raises:
        UsageError: no such dataset or release, or nothing is published.
        StorageError: the tables cannot be read, or the page cannot be written.
    """
    target = locate_beside(path, output.root)
    page, made = with_scope(
        output, settings.release, settings.dataset, lambda scope: _make(output, scope, settings), settings.most_rows
    )
    write_bytes(target, page)
    return made


def _make(output: Output, scope: Scope, settings: ReportSettings) -> tuple[bytes, Made]:
    """Return the page and its summary."""
    numbers = read_numbers(scope)
    faces, videos = numbers.totals["faces"], numbers.totals["videos"]
    distributions, faces_share = read_distributions(scope, faces) if faces else ([], 1.0)
    moments = Moments([], 1.0, True)
    if faces:
        moments = read_moments(
            scope,
            faces,
            videos,
            thumbnails=settings.thumbnails,
            blur=settings.blur,
            source_options=settings.source_options,
        )
    shift = (
        diff_releases(output, scope.others[0], scope.release, scope.dataset, _COMPARED_FACES) if scope.others else None
    )
    values = {
        "numbers": numbers,
        "distributions": distributions,
        "faces_share": faces_share,
        "groups": _groups(distributions),
        "moments": Moments(_shown(moments.moments, settings.blur), moments.share, moments.only_good),
        "moments_per": "one per video" if videos >= MOMENTS else "several per video, two seconds apart",
        "happened": read_happened(scope, blur=settings.blur),
        "shift": None if shift is None else _shift(shift),
        "coverage": plot_coverage(numbers.coverage) if numbers.faces_per_frame else None,
        "faces_per_frame": plot_faces_per_frame(numbers.faces_per_frame) if numbers.faces_per_frame else None,
        "out": None if settings.blur else redact_uri(output.root.uri).removeprefix("file://"),
        "fields": {} if settings.blur else numbers.fields,
        **_provenance(numbers.runs, settings.blur),
    }
    page = printable(_render(scope, settings, values)).encode()
    pictures = sum(moment.jpeg is not None for moment in moments.moments)
    return page, Made(
        scope.dataset,
        scope.release,
        len(page),
        numbers.weights_trained,
        numbers.unusable,
        pictures,
        len(moments.moments),
    )


def _render(scope: Scope, settings: ReportSettings, values: dict[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters.update(_FILTERS)
    here = files("featray.report")
    template = environment.from_string((here / "report.html.j2").read_text("utf-8"))
    return template.render(
        dataset=scope.dataset,
        release=scope.release,
        blur=settings.blur,
        examples=EXAMPLES,
        version=__version__,
        made_at=_when(datetime.now(UTC)),
        css=(here / "report.css").read_text("utf-8"),
        js=(here / "report.js").read_text("utf-8"),
        sections=_sections(values),
        **values,
    )


def _sections(values: dict[str, Any]) -> list[tuple[str, str]]:
    every = (
        ("processed", "What was processed", True),
        ("failures", "What failed", True),
        ("coverage", "Where faces were found", True),
        ("faces", "What the faces show", values["groups"]),
        ("moments", "Strongest expressions", values["groups"]),
        ("happened", "What happened", values["happened"]),
        ("shift", "Changes since the previous release", values["shift"]),
        ("videos", "Videos", True),
        ("runs", "Runs and throughput", True),
        ("provenance", "Provenance", values["run"]),
    )
    return [(anchor, title) for anchor, title, there in every if there]


def _groups(distributions: list[Distribution]) -> list[tuple[str, Plot, str, bool]]:
    names = list(dict.fromkeys(one.feature.group for one in distributions))
    found = []
    for name in names:
        members = [one for one in distributions if one.feature.group == name]
        plot = plot_distributions(members, _COLUMNS.get(name, max(3, min(4, len(members)))))
        found.append((name, plot, _NOTES[name], name == MEASURED))
    return found


def _shown(moments: list[Moment], blur: bool) -> list[Any]:
    """Return moments in the form that the template expects."""
    return [
        {
            "name": moment.video.video_id if blur else moment.video.label,
            "video_id": moment.video.video_id,
            "clock": clock_text(int(moment.face.row["pts_us"])),
            "from_s": max(0, int(moment.face.row["pts_us"]) // 1_000_000 - 1),
            "to_s": int(moment.face.row["pts_us"]) // 1_000_000 + 2,
            "track": moment.face.track_id,
            "emotion": moment.emotion,
            "action_units": moment.action_units,
            "jpeg": None if moment.jpeg is None else base64.b64encode(moment.jpeg).decode(),
            "why_none": moment.why_none,
        }
        for moment in moments
    ]


def _shift(diff: Diff) -> dict[str, Any]:
    words = (
        f"Unchanged in both releases: {counted(diff.videos_both, 'video')}; compared: {diff.videos_compared:,}. "
        f"Matched by their boxes in frames that both sampled: {counted(diff.matched, 'face')}, "
        f"{_share(diff.matched, diff.faces_a)} of the old and {_share(diff.matched, diff.faces_b)} of the new ones."
    )
    return {"before": diff.release_a, "words": words, "features": diff.features}


_FACTS: Final = (
    "model_name model_file hub_revision weights_sha256 weights_trained conventions unusable license recipe engine "
    "precision detector detector_sha256 decoder ffmpeg config_hash featray_version featray_commit cpu gpu versions"
).split()


def _provenance(runs: list[dict[str, Any]], blur: bool) -> dict[str, Any]:
    run = runs[0] if runs else None
    names = [name for name in _FACTS if not (blur and name == "model_file")]  # its path may name a person's home folder
    facts = (
        [] if run is None else [(name.replace("_", " "), run[name]) for name in names if run[name] not in (None, "")]
    )
    return {
        "run": run,
        "facts": [(name, str(value).lower() if isinstance(value, bool) else value) for name, value in facts],
    }


def _number(value: float, digits: int = 0) -> str:
    words = f"{value:,.{digits}f}"
    return words if any(c in "123456789" for c in words) else words.lstrip("-")


def _share(part: float, whole: float) -> str:
    return "none" if not whole else f"{100 * part / whole:.1f} %"


def _bytes(value: int) -> str:
    size, unit = float(value), "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.3g} {unit}" if value else "sizes unknown"


def _hours(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _when(at: datetime | None) -> str:
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _tail(place: str) -> str:
    """Return the end of a long place, which distinguishes videos."""
    place = place.removeprefix("file://")
    return place if len(place) <= 70 else f"…{place[-69:]}"


_FILTERS: Final = {
    "number": _number,
    "share": lambda part, whole: _share(part, whole),
    "bytes": _bytes,
    "hours": _hours,
    "when": _when,
    "tail": _tail,
    "plain": lambda value: f"{value:g}",
    # Readers paste commands, and in an output from elsewhere anything may be a release or an id.
    "shell": lambda value: shlex.quote(str(value)),
    "capitalize_first": lambda text: text[:1].upper() + text[1:],
}
