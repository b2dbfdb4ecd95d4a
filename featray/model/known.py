"""Model. Records of the published checkpoints: meaning and limits of their outputs, and the basis of their licences.

Every statement has its source. If sources disagree, the record says which one it follows; `featray models check`
decides by looking at real faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from featray.model.checkpoint import Checkpoint
from featray.model.conventions import NEWEST, PYFEAT_2_0, PYFEAT_2_1_2, Conventions
from featray.model.synth import SYNTHETIC_VARIANTS
from featray.weights.hub import DEFAULT_LICENSE, HUB_PREFIX

_REPOSITORY: Final = "py-feat/face_multitask_v2"
_CARD: Final = f"model card of {_REPOSITORY}"
_NOTICES: Final = "py-feat 2.1.5, LICENSES/PYFEAT-V2.md"


@dataclass(frozen=True)
class Fact:
    """A statement about a checkpoint, with its source."""

    says: str
    source: str


@dataclass(frozen=True)
class KnownCheckpoint:
    """A published checkpoint.

    Attributes:
        name: short name, as in `model.checkpoint: v2.8`.
        file: file in the hub's repository.
        description: one phrase.
        conventions: signs of head pose and gaze.
        shape: variant of the synthetic checkpoint that replaces it in forecasts.
        own_shape: whether its config equals that variant's, so that a file can be recognised by its config.
        unusable: columns that it does not estimate, with the reason.
        facts: the meaning of its outputs.
        licence_facts: the basis of the restriction to research.
        revision, sha256: the pinned file; None if not pinned, in which case the first pull records them and later
            runs must match the record.
    """

    name: str
    file: str
    description: str
    conventions: Conventions
    shape: str
    own_shape: bool
    unusable: dict[str, Fact]
    facts: tuple[Fact, ...]
    licence_facts: tuple[Fact, ...]
    license: str = DEFAULT_LICENSE
    revision: str | None = None
    sha256: str | None = None

    @property
    def spec(self) -> str:
        """Return the file as `hf://owner/repository/file`."""
        return f"{HUB_PREFIX}{_REPOSITORY}/{self.file}"

    @property
    def pinned(self) -> str:
        """Return how the file is pinned, as a phrase for display."""
        if self.revision and self.sha256:
            return f"revision {self.revision[:12]}, sha256 {self.sha256[:12]}"
        return "not pinned; recorded on first pull"


_GAZE_YAW: Final = Fact(
    "raw gaze yaw is positive towards the image's right, the subject's left: the network's code composes gaze with the "
    "head's rotation in a frame whose x is the image's right, and the drawing code agrees; a comment in "
    "detector_v2.py says the opposite",
    "py-feat 2.1.5, feat/multitask/heads_v26.py, feat/plotting.py draw_facegaze, feat/detector_v2.py",
)
_MESH: Final = Fact(
    "mesh x and y are shares of the chip (config: mesh_normalized), z is a relative depth, smaller towards the camera",
    "the checkpoint's config; py-feat 2.1.5, feat/detector_v2.py; MediaPipe Face Mesh",
)
_BACKBONE: Final = Fact(
    "the ConvNeXt-V2 weights that training started from are CC BY-NC 4.0; only their code is MIT",
    f"{_NOTICES}; model card of timm/convnextv2_tiny.fcmae_ft_in22k_in1k",
)
_IMG2POSE: Final = Fact("img2pose, a teacher of the head pose, is CC BY-NC 4.0", _NOTICES)
_DESIGNATED: Final = Fact("its authors designate the weights for non-commercial research", f"{_CARD}; {_NOTICES}")
_NO_INVENTORY: Final = Fact("the training data of this file is not published; the inventory covers only v2.8", _NOTICES)

V28: Final = KnownCheckpoint(
    name="v2.8",
    file="face_multitask_v28.safetensors",
    description="what py-feat 2.1.2 to 2.1.5 load",
    conventions=PYFEAT_2_1_2,
    shape="v28",
    own_shape=True,
    unusable={},
    facts=(
        Fact(
            "raw head pitch is positive downwards, checked on live video, so the column is -p0; roll is -p2, yaw +p1",
            "py-feat 2.1.2 to 2.1.5, feat/detector_v2.py",
        ),
        Fact(
            "raw gaze pitch is positive downwards, so the column is -g1", "py-feat 2.1.2 to 2.1.5, feat/detector_v2.py"
        ),
        _GAZE_YAW,
        _MESH,
        Fact(
            "chosen among six candidates by scores that include DISFA+ and EYEDIAP, which are therefore not untouched "
            "hold-out sets for it",
            _NOTICES,
        ),
    ),
    licence_facts=(
        _DESIGNATED,
        _BACKBONE,
        Fact("Gaze360's licence forbids commercial use of models trained on it", _NOTICES),
        Fact("ETH-XGaze's terms of access forbid training models for commercial products", _NOTICES),
        _IMG2POSE,
        Fact("Aff-Wild2, BP4D and BP4D+: whether their terms let such weights be shared is an open question", _NOTICES),
    ),
)

V27: Final = KnownCheckpoint(
    name="v2.7",
    file="face_multitask_v27.safetensors",
    description="what py-feat 2.1.0 loads",
    # The wheel that shipped it used +p0 and +g1. Its authors later wrote that this sign had not been established for
    # the earlier models, and measured that of the 2.1 models as positive downwards.
    conventions=PYFEAT_2_1_2,
    shape="v28",
    own_shape=False,
    unusable={},
    facts=(
        Fact("py-feat 2.1.0 gave head pitch +p0 and gaze pitch +g1", "py-feat 2.1.0, feat/detector_v2.py"),
        Fact(
            "the 2.1 models' raw pitch is positive downwards, and 2.1.0 shipped a sign that had not been established: "
            "featray follows this, so pitch has the other sign than in py-feat 2.1.0",
            "py-feat 2.1.2, feat/detector_v2.py",
        ),
        _GAZE_YAW,
        _MESH,
    ),
    licence_facts=(_DESIGNATED, _BACKBONE, _IMG2POSE, _NO_INVENTORY),
)

V25: Final = KnownCheckpoint(
    name="v2.5",
    file="face_multitask_v2.safetensors",
    description="the model card's file, and what py-feat 2.0 loads",
    conventions=PYFEAT_2_0,
    shape="v25",
    own_shape=True,
    unusable={
        "pose_pitch": Fact(
            "models before 2.1 predict a head pitch near zero, because a flip in training scrambled its labels",
            "py-feat 2.1.2, feat/detector_v2.py",
        )
    },
    facts=(
        Fact("head pitch is +p0, gaze pitch +g1", "py-feat 2.0.3, feat/detector_v2.py"),
        Fact("gaze pitch is positive upwards", _CARD),
        _GAZE_YAW,
        _MESH,
    ),
    licence_facts=(_DESIGNATED, _BACKBONE, _IMG2POSE, _NO_INVENTORY),
)

KNOWN_CHECKPOINTS: Final = (V28, V27, V25)
"""The published multitask checkpoints, newest first; other files work too."""

NON_COMMERCIAL: Final = (
    "they start from ConvNeXt-V2 weights under CC BY-NC 4.0, Gaze360's and ETH-XGaze's terms forbid commercial use of "
    "models trained on them, and img2pose, a teacher, is CC BY-NC 4.0"
)
"""The basis of the restriction, as a phrase; `licence_facts` give it for each file."""

_BY_NAME: Final = {known.name: known for known in KNOWN_CHECKPOINTS}


def known_by_spec(spec: str) -> KnownCheckpoint | None:
    """Return the checkpoint with this short name or `hf://` form."""
    return _BY_NAME.get(spec) or next((known for known in KNOWN_CHECKPOINTS if known.spec == spec), None)


def full_spec(spec: str) -> str:
    """Return `hf://...` for a short name; return other specs unchanged."""
    return _BY_NAME[spec].spec if spec in _BY_NAME else spec


@dataclass(frozen=True)
class Recognised:
    """A recognised checkpoint: its record, if there is one, and a phrase that says how it was recognised."""

    known: KnownCheckpoint | None
    how: str

    @property
    def conventions(self) -> Conventions:
        """Return its default signs: the newest for an unknown checkpoint."""
        return NEWEST if self.known is None else self.known.conventions

    @property
    def unusable(self) -> dict[str, Fact]:
        """Return the columns that it does not estimate, with the reason."""
        return {} if self.known is None else self.known.unusable


def recognise(checkpoint: Checkpoint, spec: str) -> Recognised:
    """Find the record of a checkpoint by its origin, by its sha256, or else by its config.

    Args:
        checkpoint: the opened checkpoint.
        spec: the value of `model.checkpoint`.
    """
    known = known_by_spec(spec)
    if known is not None:
        return Recognised(known, f"{known.name}, by its name on the hub")
    for known in KNOWN_CHECKPOINTS:
        if known.sha256 is not None and known.sha256 == checkpoint.sha256:
            return Recognised(known, f"{known.name}, by its sha256")
    if not checkpoint.weights_trained:
        return Recognised(None, "synthetic weights")
    for known in KNOWN_CHECKPOINTS:
        if known.own_shape and checkpoint.config == SYNTHETIC_VARIANTS[known.shape]:
            return Recognised(known, f"taken for {known.name}, by its config")
    return Recognised(None, f"not a known checkpoint; the newest conventions, {NEWEST.name}, are taken for it")
