"""A folder of named pictures gives names to persons, with the workers' code; pictures that name nobody are reported."""

import av
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageOps

from featray.cli import main
from featray.config_identify import IdentifyConfig
from featray.errors import UsageError
from featray.persons.gallery import Gallery, read_gallery, recognise
from featray.persons.settings import PersonsSettings
from featray.upkeep.persons import find_persons
from featray.video.stills import MAX_FILE_BYTES
from tests.fixtures.crowd import Crowd
from tests.fixtures.outputs import rows


@pytest.fixture(scope="module")
def pictures(clips):
    """Return a picture of a face, and one of a room without a face."""
    found = []
    for name in ("face.mp4", "no_face.mp4"):
        with av.open(str(clips / name)) as container:
            found.append(next(container.decode(video=0)).to_image())
    return found


def with_two(picture):
    both = Image.new("RGB", (2 * picture.width, picture.height))
    both.paste(picture, (0, 0))
    both.paste(ImageOps.mirror(picture), (picture.width, 0))
    return both


@pytest.fixture
def folder(pictures, tmp_path):
    face, room = pictures
    made = tmp_path / "gallery"
    (made / "Anna B").mkdir(parents=True)
    face.save(made / "Anna B" / "one.jpg")
    ImageOps.mirror(face).save(made / "Anna B" / "two.png")
    room.save(made / "ben.jpg")
    with_two(face).save(made / "both.jpg")
    (made / "carl\x1b[2J.jpg").write_text("no picture")
    with (made / "long.jpg").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    (made / ".hidden").write_text("")
    return made


def test_names_come_from_files_and_folders(folder):
    found = read_gallery(folder, IdentifyConfig())
    assert found.names == ["Anna B"] and found.templates.shape == (1, 128)
    assert np.linalg.norm(found.templates) == pytest.approx(1, abs=1e-5)
    first, second, third, fourth = sorted(found.problems)
    assert first.startswith("ben.jpg: has 0 faces") and second.startswith("both.jpg: has 2 faces")
    assert third.startswith("carl\x1b[2J.jpg: is not a JPEG")
    assert fourth == "long.jpg: a file of 267,386,881 bytes; the limit for a picture is 267,386,880"


def test_persons_get_names_and_keep_them(folder, tmp_path):
    crowd = Crowd(tmp_path / "out")
    crowd._people[3] = 11 * read_gallery(folder, IdentifyConfig()).templates[0]
    crowd.publish({f"{i}.mp4": [i % 3, 3] for i in range(4)})
    root = crowd.output.root.path
    done = CliRunner().invoke(main, ["persons", root, "--gallery", str(folder)], catch_exceptions=False)
    assert done.exit_code == 0 and "named: 1 person: Anna B (p-" in done.output and "\x1b" not in done.output
    assert "ben.jpg: has 0 faces; a gallery picture needs exactly one" in done.output

    def names():
        return {row["name"]: crowd.truth[row["video_id"], row["track_id"]] for row in rows(root, "persons")}

    assert names()["Anna B"] == 3 and set(names()) == {"Anna B", None}
    assert not find_persons(crowd.partition, PersonsSettings()).fresh, "without a gallery, names stay"
    crowd.publish({"later.mp4": [3, 8]})
    find_persons(crowd.partition, PersonsSettings())
    assert {row["name"] for row in rows(root, "persons") if crowd.truth[row["video_id"], row["track_id"]] == 3} == {
        "Anna B"
    }
    face = folder / "Anna B" / "one.jpg"
    face.rename(folder / "anna.jpg")
    (folder / "Anna B" / "two.png").rename(folder / "bea.png")
    twice = CliRunner().invoke(main, ["persons", root, "--gallery", str(folder)], catch_exceptions=False)
    assert "is near 2 names, nearest first: " in twice.output and set(names()) <= {"anna", "bea", None}


def test_who_is_near_to_nobody_stays_without_a_name():
    gallery = Gallery(["anna", "bea"], np.eye(2, 4, dtype=np.float32))
    found = recognise(np.array([[0, 0, 1, 0], [0.98, 0.19, 0, 0]], np.float32), gallery, 0.9)
    assert (found.name_of, found.several, found.nobody) == ({1: "anna"}, [], [("bea", pytest.approx(0.19))])


@pytest.mark.parametrize("kind", ["missing", "empty", "no face"])
def test_a_gallery_without_faces_is_one_line(kind, pictures, tmp_path):
    folder = tmp_path / "gallery"
    if kind != "missing":
        folder.mkdir()
    if kind == "no face":
        pictures[1].save(folder / "ben.jpg")
    with pytest.raises(UsageError, match="--gallery .*" + {"missing": "cannot be read"}.get(kind, "no picture shows")):
        read_gallery(folder, IdentifyConfig())
