"""Path fields that do not match, are long or odd: published, verified, and read by DuckDB and Spark from folders."""

import shutil

import duckdb
import pytest

from featray.tables.layout import open_output
from featray.upkeep.verify import verify
from tests.fixtures.runs import make_config, run_here

pytestmark = pytest.mark.slow

FOLDERS = {"flat": None, "(" * 90: "cut", "new\nline": "new\nline", "zurich": "zurich"}


@pytest.fixture(scope="module")
def published(tmp_path_factory, clips):
    root = tmp_path_factory.mktemp("fields")
    for number, folder in enumerate(FOLDERS):
        place = root / "in" / ("" if folder == "flat" else f"site-{folder}")
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(clips / "no_face.mp4", place / f"{number}.mp4")
    config = make_config([f"{root}/in/"], root / "out")
    config = config.model_copy(update={"input": config.input.model_copy(update={"path_fields": "site-{site}/{name}"})})
    summary = run_here(config)
    assert summary.videos == {"ok": 4, "partial": 0, "failed": 0}
    assert run_here(config).status == "nothing_to_do"
    return root / "out"


def checked(sites):
    null, *rest = sorted(sites, key=lambda site: site is not None)
    assert null is None and len(rest) == 3
    (cut,) = set(rest) - {"new\nline", "zurich"}
    assert cut.startswith("((((") and len(cut) < 90
    return set(sites)


def test_they_are_published_and_verified(published):
    assert not verify(open_output(str(published))).problems


def test_duckdb_and_spark_read_the_same_from_files_and_folders(published, spark):
    files = f"read_parquet('{published}/videos/**/*.parquet', hive_partitioning="
    queries = [f"SELECT site FROM {files}{flag})" for flag in ("false", "true")]
    inside, folders = ({site for (site,) in duckdb.sql(query).fetchall()} for query in queries)
    rows = {row.site for row in spark.read.parquet(f"{published}/videos").select("site").collect()}
    assert checked(inside) == folders == rows
