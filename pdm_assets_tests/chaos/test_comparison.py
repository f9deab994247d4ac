"""The kill trials' comparison of two loads: last digits may differ, nothing else may."""

import pyarrow as pa
import pytest

from pdm_assets_tests.chaos.trials import differences, is_same

NAN = float("nan")


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        ([1.0, None, NAN], [1.0 + 1e-13, None, NAN], True),
        ([0.0], [1e-13], True),
        ([1.0], [1.0 + 1e-6], False),
        ([1.0, None], [None, 1.0], False),
        ([None], [NAN], False),
        ([1], [2], False),
        (["a"], ["b"], False),
        ([1], [1.0], False),
    ],
)
def test_only_the_last_digits_may_differ(found, expected, same):
    assert is_same(pa.chunked_array([found]), pa.chunked_array([expected])) is same


def test_differences_are_told_in_words():
    table = pa.table({"a": [1, 2], "b": [0.5, 0.25]})
    other = pa.table({"a": [1, 2], "b": [0.5, 0.5]})
    assert differences({"t": table}, {"t": table}) == []
    assert differences({"t": table}, {"t": other}) == ["t: other values in ['b']"]
    assert differences({"t": table[:1]}, {"t": table}) == ["t: 1 rows instead of 2"]
    assert differences({"u": table}, {"t": table}) == ["t is missing", "u is there"]
