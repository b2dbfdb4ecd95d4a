import sys
from subprocess import run

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from featray.faces.overlap import best_pairs


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (0, 1), (3, 0), (0, 0), (3, 4)])
def test_pairs_are_those_of_the_assignment(shape):
    """Equal overlaps too: the first is taken."""
    rng = np.random.default_rng(shape[0])
    for digits in (0, 1, 17):
        for _ in range(30):
            overlap = rng.random(shape).round(digits)
            for found, expected in zip(best_pairs(overlap), linear_sum_assignment(overlap, maximize=True), strict=True):
                np.testing.assert_array_equal(found, expected)


def test_one_face_does_not_load_scipy_s_optimization():
    code = "import numpy, sys; from featray.faces.overlap import best_pairs; best_pairs(numpy.ones((1, 1)))"
    run([sys.executable, "-c", f"{code}; assert 'scipy.optimize' not in sys.modules"], check=True)
