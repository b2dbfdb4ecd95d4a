"""Links from one place of an output to another: no command deletes the files of one as strays of the other."""

import shutil

import pytest

from tests.faults.test_hostile_output import house as house
from tests.fixtures.hostile import House, featray
from tests.fixtures.outputs import rows


def sound(house: House) -> set[tuple]:
    """Return the faces of the videos that are not erased, in whatever file; an erasure that stops leaves copies."""
    found = rows(house.out, "faces", without={house.video_id})
    return {(row["video_id"], row["frame_index"], row["face_index"], row["box_x1"]) for row in found}


def one_release(house: House, table: str, name: str) -> None:
    link = house.out / table / f"dataset={house.part[0]}" / f"release={name}"
    shutil.rmtree(link, ignore_errors=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(house.out / "faces" / f"dataset={house.part[0]}" / f"release={house.part[1]}")


def a_table(house: House) -> None:
    shutil.rmtree(house.out / "events")
    (house.out / "events").symlink_to("faces")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "plant",
    [
        lambda house: one_release(house, "errors", house.part[1]),
        lambda house: one_release(house, "tracks", house.part[1]),
        lambda house: one_release(house, "embeddings", house.part[1]),
        a_table,
    ],
    ids=["errors", "tracks", "embeddings", "table"],
)
def test_no_command_deletes_through_a_link_inside_the_output(house, plant):
    plant(house)
    before = sound(house)
    assert before
    for words in (
        ["run", house.config, "--quiet"],
        ["publish", house.out],
        ["compact", house.out],
        ["derive", house.out, "--set", "derive.gap_s=0.7"],
        ["persons", house.out],
        ["verify", house.out],
        ["erase", house.out, "--video", house.video_id],
    ):
        done = featray(*words)
        assert sound(house) == before, words
        assert done.exit_code in (0, 1) and "Traceback" not in done.output, words
    assert "a link leads to another place of the output" in featray("verify", house.out).output
