"""pandas, which PyArrow imports, is not loaded."""

import subprocess
import sys

CODE = """
import sys
from featray.unloaded import hide_pandas, show_pandas

hide_pandas()
import pyarrow as pa

rows = pa.table({"a": pa.array([1, 2])})
assert "pandas" not in sys.modules
import importlib.util

assert importlib.util.find_spec("pandas").origin is None
show_pandas()
frame = rows.to_pandas()
assert type(frame) is __import__("pandas").DataFrame and pa.Table.from_pandas(frame).equals(rows)
"""


def test_pyarrow_does_without_pandas_until_a_frame_is_asked_for():
    subprocess.run([sys.executable, "-c", CODE], check=True)


def test_the_command_line_hides_it_from_its_own_process_only():
    code = "from featray.cli import main; import pyarrow as pa, sys; sys.argv[1:] = ['schema']; main({}); "
    code += "pa.array([1]); print('pandas' in sys.modules, file=sys.stderr)"
    for given, loaded in (("standalone_mode=False", "False"), ("sys.argv[1:], standalone_mode=False", "True")):
        done = subprocess.run([sys.executable, "-c", code.format(given)], capture_output=True, text=True)
        assert done.stderr.strip().endswith(loaded), done.stderr


def test_public_names_are_listed_without_being_loaded():
    code = "import featray, sys; assert set(dir(featray)) == {'errors', 'open', 'to_fex', '__version__'}; "
    code += "assert issubclass(featray.errors.UsageError, featray.errors.FeatrayError); "
    code += "assert 'duckdb' not in sys.modules and 'pyarrow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
