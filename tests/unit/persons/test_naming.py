"""Persons keep their names when tracks come, go and change persons, and no name passes to somebody else."""

import numpy as np
import pytest

from featray.persons import naming
from featray.persons.agreement import agreement

KEYS = [(f"{i:016x}", 0) for i in range(6)]


def name_persons(keys, person, before, earlier=None, split_off=()):
    """Return the id of each track's person; `before` has the ids until now by key, `earlier` those before them."""
    first = {one: person.index(one) for one in person}
    number = {one: i for i, one in enumerate(sorted(first, key=first.get))}
    index = np.array([number[one] for one in person])
    of_edit = np.isin(range(len(keys)), split_off)
    named = naming.name_persons(keys.__getitem__, index, former(keys, before), former(keys, earlier or {}), of_edit)
    return np.array(named)[index].tolist()


def former(keys, ids_of):
    ids = sorted(set(ids_of.values()))
    return naming.Former(np.array([ids.index(ids_of[key]) if key in ids_of else -1 for key in keys]), ids)


def test_a_name_follows_from_the_first_track():
    names = name_persons(KEYS, [0, 0, 2, 2, 4, 0], {})
    assert names[0] == names[1] == names[5] and len(set(names)) == 3
    assert name_persons(KEYS[2:4], [7, 7], {}) == names[2:4]
    assert all(name.startswith("p-") and len(name) == 14 for name in names)


def test_names_stay_when_tracks_are_added():
    before = dict(zip(KEYS[2:], name_persons(KEYS[2:], [0, 0, 1, 1], {}), strict=True))
    after = name_persons(KEYS, [9, 3, 3, 3, 9, 9], before)
    assert after[2:] == list(before.values())
    assert after[0] == before[KEYS[4]] and after[1] == before[KEYS[2]], "though the first track is another one now"


def test_who_has_more_of_the_tracks_keeps_the_name():
    before = dict.fromkeys(KEYS[:5], "p-old")
    parted = name_persons(KEYS, [1, 1, 2, 2, 2, 1], before)
    assert parted[2:5] == ["p-old"] * 3 and parted[0] == parted[5] != "p-old"
    joined = name_persons(KEYS, [1] * 6, {KEYS[0]: "p-a", KEYS[1]: "p-b", KEYS[2]: "p-b"})
    assert set(joined) == {"p-b"}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_merge_that_is_taken_back_gives_both_their_names(count):
    """Else `erase --person` with an id from before would erase the other person."""
    keys, apart = KEYS[: count + 1], [0] + [1] * count
    first, second = name_persons(KEYS, [0, 0, 0, 1, 1, 1], {})[::3]
    for before in ([first] + [second] * count, [second] + [first] * count):
        before = dict(zip(keys, before, strict=True))
        together = dict(zip(keys, name_persons(keys, [0] * len(keys), before), strict=True))
        assert len(set(together.values())) == 1
        earlier = {key: before[key] for key in keys if before[key] != together[key]}
        assert name_persons(keys, apart, together, earlier) == [before[key] for key in keys]


def test_a_name_that_others_had_too_is_not_given_back():
    before, earlier = dict.fromkeys(KEYS[:3], "p-new"), dict.fromkeys(KEYS[1:5], "p-old")
    one, two, three = name_persons(KEYS, [0, 1, 2, 3, 3, 3], before, earlier)[:3]
    assert one == "p-new" and "p-old" not in (two, three)


def test_a_name_that_is_gone_is_not_given_again():
    (name,) = set(name_persons(KEYS[:1], [0], {}))
    taken = {KEYS[1]: name, KEYS[2]: name}
    assert name_persons(KEYS[:1], [0], taken)[0] != name
    assert name_persons(KEYS[:3], [0, 1, 1], taken)[0] != name


def test_agreement_by_hand():
    """Bagga and Baldwin's B-cubed, computed by hand for five tracks."""
    result = agreement(np.array(["a", "a", "a", "b", "b"]), np.array([1, 1, 2, 2, 2]))
    precision, recall = (2 / 3 + 2 / 3 + 1 / 3 + 1 + 1) / 5, (1 + 1 + 1 / 3 + 2 / 3 + 2 / 3) / 5
    assert result.b_cubed_f == pytest.approx(2 * precision * recall / (precision + recall))
    assert (result.precision, result.recall) == (2 / 4, 2 / 4)
    alone = agreement(np.arange(3), np.arange(3))
    assert (alone.precision, alone.recall, alone.b_cubed_f) == (1, 1, 1)
    with pytest.raises(ValueError, match="one entry per track"):
        agreement(np.arange(3), np.arange(2))


@pytest.mark.parametrize("split_off", [[0], [1], [0, 1], [1, 2]])
def test_tracks_that_were_split_off_get_another_id_even_if_they_are_more(split_off):
    before = {key: "p-a" for key in KEYS[:3]}
    person = [1 if place in split_off else 0 for place in range(3)]
    names = name_persons(KEYS[:3], person, before, split_off=split_off)
    assert [name == "p-a" for name in names] == [place not in split_off for place in range(3)]
