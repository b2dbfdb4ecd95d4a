"""Views. The recognisable lines of MediaPipe's face mesh: lips, eyes, brows, nose, irises, outline.

Vertices of the 478-point topology (468 of the face, then five of each iris: its centre and
four points around it). Right and left are the subject's.
"""

from __future__ import annotations

from typing import Final

Path = tuple[int, ...]

FACE_OVAL: Final[Path] = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109, 10,
)  # fmt: skip

RIGHT_EYE: Final[Path] = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246, 33)
LEFT_EYE: Final[Path] = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466, 263)

RIGHT_BROW: Final[Path] = (46, 53, 52, 65, 55, 107, 66, 105, 63, 70, 46)
LEFT_BROW: Final[Path] = (276, 283, 282, 295, 285, 336, 296, 334, 293, 300, 276)

OUTER_LIPS: Final[Path] = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185, 61,
)  # fmt: skip
INNER_LIPS: Final[Path] = (
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191, 78,
)  # fmt: skip

NOSE_BRIDGE: Final[Path] = (168, 6, 197, 195, 5, 4, 1, 19, 94, 2)
NOSE_BASE: Final[Path] = (98, 97, 2, 326, 327)

RIGHT_IRIS: Final[Path] = (469, 470, 471, 472, 469)
LEFT_IRIS: Final[Path] = (474, 475, 476, 477, 474)

CONTOURS: Final[tuple[Path, ...]] = (
    FACE_OVAL,
    RIGHT_EYE,
    LEFT_EYE,
    RIGHT_BROW,
    LEFT_BROW,
    OUTER_LIPS,
    INNER_LIPS,
    NOSE_BRIDGE,
    NOSE_BASE,
    RIGHT_IRIS,
    LEFT_IRIS,
)
