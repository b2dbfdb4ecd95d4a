"""Episodes compared with signals of known truth, and checked for properties that hold for all of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featray.findings.episodes import Spans, find_episodes, join, means, peaks
from featray.findings.samples import lay_out, quantiles
from featray.findings.smoothing import smooth
from tests.fixtures.signals import RATES, make_scene, pieces_of

THRESHOLDS = {"on": 0.5, "off": 0.35, "least_s": 0.0, "merge_s": 0.0}


def expected(scene):
    """Return (track, start, end, samples, open at start, open at end) of each episode that the samples can show."""
    found = []
    for number, truth in scene.truth.items():
        pts = scene.pts_us[scene.track == number]
        for first, last in scene.pieces[number]:
            for start, end in truth:
                inside = pts[(pts >= max(start, first)) & (pts <= min(end, last))]
                if len(inside):
                    opened = inside[0] == first, inside[-1] == last
                    found.append((number, int(inside[0]), int(inside[-1]), len(inside), *opened))
    return found


def seen(scene, spans):
    samples = scene.samples
    return [
        (
            int(samples.track[a]),
            int(samples.pts_us[a]),
            int(samples.pts_us[b]),
            b - a + 1,
            samples.first[a],
            samples.last[b],
        )
        for a, b in zip(spans.starts.tolist(), spans.ends.tolist(), strict=True)
    ]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("seed", range(3))
def test_every_episode_is_found_at_its_samples_and_none_is_invented(rate, seed):
    scene = make_scene(rate, np.random.default_rng(seed))
    assert seen(scene, find_episodes(scene.values, scene.samples, **THRESHOLDS)) == expected(scene)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("lasts", [{}, {"least_s": 0.1, "merge_s": 0.1}])
def test_with_half_of_the_frames_lost_they_are_the_same_within_the_new_spacing(rate, lasts):
    rng = np.random.default_rng(7)
    scene = make_scene(rate, rng)
    fewer = scene.without_half(rng)
    fewer.pieces = pieces_of(fewer)
    before = seen(scene, find_episodes(scene.values, scene.samples, **THRESHOLDS | lasts))
    after = seen(fewer, find_episodes(fewer.values, fewer.samples, **THRESHOLDS | lasts))
    left = list(after)
    for number, start, end, samples, *opened in before:
        pts = fewer.pts_us[fewer.track == number]
        kept = pts[(pts >= start) & (pts <= end)]
        match = [one for one in left if one[0] == number and one[1] <= end and one[2] >= start]
        if not match:
            assert samples <= 3, (start, end)
            continue
        one = match[0]
        assert (one[1], one[2]) == (kept[0], kept[-1])
        # If the sample between an episode and a gap is lost, the gap now hides the episode's start.
        assert all(now or not was for was, now in zip(opened, one[4:], strict=True))
        left.remove(one)
    assert not left


def test_a_filter_moves_no_edge_by_more_than_a_sample_and_its_time_constant():
    for rate in RATES:
        scene = make_scene(rate, np.random.default_rng(3), noise=0.02)
        samples = scene.samples
        spans = find_episodes(smooth(scene.values, samples, 0.03), samples, **THRESHOLDS)
        found = {(track, start, end) for track, start, end, *_ in seen(scene, spans)}
        step = int(samples.step_us.max())
        for number, start, end, *_ in (one for one in expected(scene) if one[2] - one[1] > 150_000):
            near = [f for f in found if f[0] == number and abs(f[1] - start) <= step + 30_000]
            assert any(abs(f[2] - end) <= step + 30_000 for f in near), (rate, start, end)


@st.composite
def recordings(draw):
    count = draw(st.integers(1, 60))
    steps = draw(st.lists(st.sampled_from([0, 1, 33_333, 40_000, 120_000, 2_000_000]), min_size=count, max_size=count))
    levels = st.one_of(st.sampled_from([0.0, 0.3, 0.35, 0.4, 0.5, 0.9, np.nan]), st.floats(0, 1, width=32))
    values = np.array(draw(st.lists(levels, min_size=count, max_size=count)), np.float32)
    track = np.cumsum(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    return lay_out(np.cumsum(steps), track - track[0], 0.5), values


def walls(samples):
    """Return the samples after a gap or at the start of a track; a span contains one only as its first sample."""
    return np.flatnonzero(samples.first)


@given(recordings(), st.sampled_from([0.0, 0.05, 0.3]), st.sampled_from([0.0, 0.05, 0.3]))
@settings(deadline=None, max_examples=80)
def test_episodes_are_in_order_apart_within_pieces_and_hold_what_defines_them(recording, least_s, merge_s):
    samples, values = recording
    spans = find_episodes(values, samples, on=0.5, off=0.35, least_s=least_s, merge_s=merge_s)
    assert (spans.starts <= spans.ends).all() and (spans.ends[:-1] < spans.starts[1:]).all()
    assert (samples.piece[spans.starts] == samples.piece[spans.ends]).all()
    assert (spans.covered(samples) >= 2e6 * least_s).all()
    places, most = peaks(values, spans)
    average = means(values, samples, spans)
    for start, end, place, peak, mean in zip(spans.starts, spans.ends, places, most, average, strict=True):
        inside = values[start : end + 1]
        assert start <= place <= end and peak == np.nanmax(inside) >= 0.5 and place - start == np.nanargmax(inside)
        assert np.nanmin(inside) - 1e-6 <= mean <= peak + 1e-6
        if not merge_s:
            assert (inside >= 0.35).all()
    if not least_s:
        assert spans.mask(len(values))[values >= 0.5].all()  # none is lost
    backwards = lay_out(samples.pts_us.max() - samples.pts_us[::-1], samples.track.max() - samples.track[::-1], 0.5)
    again = find_episodes(values[::-1], backwards, on=0.5, off=0.35, least_s=least_s, merge_s=merge_s)
    last = len(values) - 1
    assert [(last - e, last - s) for s, e in zip(again.starts, again.ends, strict=True)][::-1] == list(
        zip(spans.starts.tolist(), spans.ends.tolist(), strict=True)
    )


@given(recordings(), recordings())
@settings(deadline=None, max_examples=30)
def test_a_track_has_the_same_numbers_to_the_bit_whatever_is_beside_it(one, other):
    """Smoothing too, which is one system of equations over all tracks."""
    (a, x), (b, y) = one, other
    both = lay_out(np.concatenate([a.pts_us, b.pts_us]), np.concatenate([a.track, b.track + a.tracks]), 0.5)
    together = smooth(np.concatenate([x, y]), both, 0.1)
    assert np.concatenate([smooth(x, a, 0.1), smooth(y, b, 0.1)]).tobytes() == together.tobytes()
    alone = np.concatenate([quantiles(x, a, (5, 50)), quantiles(y, b, (5, 50))], axis=1)
    assert alone.tobytes() == quantiles(np.concatenate([x, y]), both, (5, 50)).tobytes()


@given(recordings())
@settings(deadline=None, max_examples=40)
def test_the_filter_stays_within_a_piece_and_its_values(recording):
    samples, values = recording
    smoothed = smooth(values, samples, 0.2)
    assert (np.isnan(smoothed) == np.isnan(values)).all()
    for piece in np.unique(samples.piece):
        here = (samples.piece == piece) & ~np.isnan(values)
        if here.any():
            low, high = values[here].min(), values[here].max()
            assert (smoothed[here] >= low - 1e-4).all() and (smoothed[here] <= high + 1e-4).all()


def test_the_filter_has_the_gain_and_no_delay_that_it_states():
    rng = np.random.default_rng(0)
    pts = np.sort(rng.choice(20_000_000, 4000, replace=False)).astype(np.int64)  # 200 a second, at random times
    samples = lay_out(pts, np.zeros(4000, np.int64), 0.5)
    for hertz in (0.5, 1.0, 2.0):
        sine = np.sin(2 * np.pi * hertz * pts / 1e6)
        left = smooth((sine).astype(np.float32), samples, 0.1)
        middle = (pts > 2e6) & (pts < 18e6)
        gain = 1 / (1 + (2 * np.pi * hertz * 0.1) ** 2)
        assert np.abs(left - gain * sine)[middle].max() < 0.02
    assert abs(np.average(left, weights=samples.cells) - np.average(sine, weights=samples.cells)) < 1e-4


def test_quantiles_are_of_time_and_not_of_samples():
    pts = np.array([0, 10, 20, 30, 1030, 2030]) * 1000  # the last two are a second apart
    samples = lay_out(pts, np.zeros(6, np.int64), 2.0)
    values = np.array([0.9, 0.8, 0.9, 0.9, 0.2, 0.1], np.float32)
    assert quantiles(values, samples, (50,))[0, 0] == np.float32(0.2) and np.median(values) > 0.8
    nothing = quantiles(np.full(6, np.nan, np.float32), samples, (50,))
    assert np.isnan(nothing).all()


@given(st.lists(st.lists(st.integers(0, 40), max_size=8), min_size=2, max_size=3))
@settings(deadline=None, max_examples=40)
def test_unions_of_spans_against_a_set(marks):
    several, covered = [], []
    for places in marks:
        flags = np.zeros(44, bool)
        flags[places] = True
        flags[[place + 1 for place in places]] = True
        edges = np.diff(np.concatenate([[0], flags.astype(int), [0]]))
        several.append(Spans(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1))
        covered.append(flags)
    union, held = join(tuple(several))
    assert (union.mask(44) == np.logical_or.reduce(covered)).all()
    for flags, which in zip(covered, held, strict=True):
        assert [bool(flags[s : e + 1].any()) for s, e in zip(union.starts, union.ends, strict=True)] == which.tolist()
