"""`featray derive` on Ray: tasks derive and commit shards.

With Ray it tests that tasks reach workers, and that their results and errors come back.
"""

import json
import shutil

import numpy as np
import pytest

from featray.config_derive import DeriveConfig
from featray.errors import ConfigError
from featray.findings.derive import Derivation
from featray.upkeep.derive import derive_partition
from tests.fixtures.people import FRAMES, add_shard, derived_files, derived_rows, open_people

pytestmark = pytest.mark.ray

SETTINGS = {"baseline": "neutral", "neutral": {"marked_by": "rest", "key": "participant"}}
OWN = {"name": "jaw", "expression": "jawOpen", "on_at": 1, "off_at": 1, "least_s": 0, "merge_s": 0}


def test_rows_are_those_of_the_local_executor_and_an_error_comes_back_as_it_is(cluster, tmp_path):
    rng = np.random.default_rng(0)
    for shard in range(4):
        of = {n: json.dumps({"participant": f"p{n}", "rest": f"0-{shard}"}) for n in (1, 2)}
        videos = {f"{shard}-{n}": (extra, rng.random(FRAMES)) for n, extra in of.items()}
        add_shard(tmp_path / "here", f"shard-{shard}", videos)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    derivation = Derivation(DeriveConfig.model_validate(SETTINGS))
    here = derive_partition(open_people(tmp_path / "here")[1], derivation, "local")
    there = derive_partition(open_people(tmp_path / "there")[1], derivation, "ray")
    assert here == there and here.shards == 4 and here.neutral_videos == 6
    assert derived_files(tmp_path / "here") == derived_files(tmp_path / "there")
    rows = derived_rows(open_people(tmp_path / "there")[0])
    assert rows["tracks"] and rows["events"] and rows == derived_rows(open_people(tmp_path / "here")[0])
    assert derive_partition(open_people(tmp_path / "there")[1], derivation, "ray").already == 4
    says = r"^derive\.events: jaw: jawOpen: this output has no blendshapes; use columns of faces$"
    with pytest.raises(ConfigError, match=says):
        own = Derivation(DeriveConfig.model_validate({"events": [OWN]}))
        derive_partition(open_people(tmp_path / "there")[1], own, "ray")
