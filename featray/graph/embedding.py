"""Graph. Compute embeddings along with inference, in batches, for the faces chosen by cadence and quality."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featray.config_identify import IdentifyConfig
from featray.faces.cadence import Cadence, landmarks_of, qualities, taken_frames
from featray.faces.embedder import embed_chips, open_embedder
from featray.tables.ledger import with_embeddings


class EmbedFaces:
    """Adds embeddings to the faces of a chunk. Holds the embedder, which uses one thread.

    Raises:
        FeatrayError: as `open_embedder` does.
    """

    def __init__(self, settings: IdentifyConfig) -> None:
        self._settings = settings
        self._embedder = open_embedder(settings)

    def __call__(
        self, landed: pa.Table, frames: pa.Table, chips: NDArray[np.uint8], chip_of: NDArray[np.int32]
    ) -> pa.Table:
        """Return landed faces with the columns of EMBEDDED_SCHEMA.

        Args:
            landed: the faces of a chunk, rows of LANDED_SCHEMA.
            frames: all frames of the chunk, rows of FRAMES_SCHEMA.
            chips: uint8 `[m, 256, 256, 3]` RGB, the chips of the chunk.
            chip_of: `[n]`, index of each face's chip; faces that share a chip differ only in time.

        Raises:
            ModelError: the embedder fails.
        """
        quality = qualities(landed, self._settings)
        taken = taken_frames(frames, Cadence(self._settings.every_us))
        rows = np.flatnonzero((quality > 0) & np.isin(landed["frame_index"].to_numpy(), taken))
        shown, first, same = np.unique(chip_of[rows], return_index=True, return_inverse=True)
        some = rows[first]
        squares = np.column_stack([landed[name].to_numpy()[some] for name in ("crop_x", "crop_y", "crop_side")])
        found = embed_chips(self._embedder, chips[shown], landmarks_of(landed)[some], squares.astype(np.float64))
        return with_embeddings(landed, found[same], quality[rows], rows)
