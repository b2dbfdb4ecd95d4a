"""Where an output may be."""

import pytest

from featray.errors import ConfigError
from featray.tables.layout import open_output


@pytest.mark.parametrize("name", ["take[1]", "all*", "really?"])
@pytest.mark.parametrize("create", [True, False])
def test_a_place_whose_files_could_not_be_read_again_is_refused(tmp_path, name, create):
    with pytest.raises(ConfigError, match=r"an output's URI may not hold") as caught:
        open_output(f"{tmp_path}/{name}", create=create)
    assert "\n" not in str(caught.value) and str(tmp_path / name) in str(caught.value)
    assert list(tmp_path.iterdir()) == []
