"""Flower's messages: arrays and facts arrive as they left."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

pytest.importorskip("flwr")

from stages.engines.flower.payload import TYPES, from_records, size, to_records
from stages.errors import UserError


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.sampled_from(TYPES).flatmap(
            lambda kind: arrays_of.arrays(kind, arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
        ),
        max_size=3,
    )
)
def test_arrays_travel_exactly(arrays):
    facts = {"nothing": None, "number": float("nan"), "list": [1, [2.5, "three"]], "name": "\u00e9"}
    back, told = from_records(to_records(arrays, facts))
    assert back.keys() == arrays.keys() and repr(told) == repr(facts)
    for name, value in arrays.items():
        assert (back[name].dtype, back[name].shape) == (value.dtype, value.shape)
        assert back[name].tobytes() == value.tobytes()  # NaNs too


def test_a_mislabelled_array_and_a_text_that_is_no_json_are_refused():
    content = to_records({"a": np.zeros(3, np.float32)}, {})
    content.array_records["arrays"]["a"].shape = (4,)
    with pytest.raises(UserError, match="labelled"):
        from_records(content)
    content = to_records({}, {})
    content.config_records["facts"]["json"] = "{"
    with pytest.raises(UserError, match="can't be read"):
        from_records(content)


def test_the_size_is_that_of_arrays_and_text():
    assert size(to_records({"a": np.zeros((2, 3), np.float32)}, {})) == 128 + 24 + 2  # an npy header, numbers, {}
