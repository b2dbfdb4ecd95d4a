"""`to_fex` without py-feat; see tests/parity for tests with it."""

import sys

import pyarrow as pa
import pytest

import featray
from featray.errors import UsageError


def test_without_pyfeat_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "feat", None)
    with pytest.raises(UsageError, match=r"py-feat.*pip install 'featray\[fex\]'") as caught:
        featray.to_fex(pa.table({"AU12": [0.5]}))
    assert "\n" not in str(caught.value)


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="no attribute 'to_fax'"):
        _ = featray.to_fax
