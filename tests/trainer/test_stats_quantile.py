"""The scorer's own quantile of Student's t against SciPy's."""

from __future__ import annotations

import pytest
from scipy.stats import t

from trainer.trusted.stats import student_t


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 15, 31, 32, 128, 511, 512, 2047])
@pytest.mark.parametrize("probability", [0.5, 0.9, 0.999])
def test_student_t(degrees, probability):
    assert student_t(degrees, probability) == pytest.approx(t.ppf(probability, degrees), rel=1e-9, abs=1e-9)
