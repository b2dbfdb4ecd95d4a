"""Findings. The settings with which published rows were derived; every derived file has them in its footer."""

from __future__ import annotations

import json

from featray.config_derive import DERIVE_EPOCH, DeriveConfig
from featray.errors import ConfigError, OutputError
from featray.findings.derive import Derivation
from featray.tables.commits import CommittedFile
from featray.tables.layout import Partition
from featray.tables.rewrite import footer_of, open_parquet


def recorded_derivation(partition: Partition, file: CommittedFile) -> Derivation | None:
    """Return the settings in a file's footer; None if another version of featray derived the file.

    Raises:
        OutputError: the footer has no valid settings.
    """
    place = partition.output.root.child(file.path)
    with open_parquet(place) as opened:
        text = footer_of(opened).get("derive", "")
    try:
        settings = json.loads(text)
        if settings.pop("epoch") != DERIVE_EPOCH:
            return None
        return Derivation(DeriveConfig.model_validate(settings))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError, ConfigError):
        raise OutputError(f"{place.uri}: its footer has no settings of a derivation") from None
