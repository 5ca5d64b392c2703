"""Arrays that travel together come apart as they were."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from hone.models.sending import laid_together, send, taken_apart

KINDS = [np.int64, np.int32, np.float32, np.float64, np.bool_]


@given(
    shapes=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 7)), min_size=1, max_size=6),
    kinds=st.lists(st.sampled_from(KINDS), min_size=6, max_size=6),
)
def test_one_buffer_holds_them_all(shapes, kinds) -> None:
    draw = np.random.default_rng(0)
    arrays = {
        str(i): (draw.random(shape) * 9 - 3).astype(kind)
        for i, (shape, kind) in enumerate(zip(shapes, kinds, strict=False))
    }
    buffer, places = laid_together(arrays)
    found = taken_apart(torch.from_numpy(buffer), arrays, places)
    for name, array in arrays.items():
        assert found[name].dtype == torch.from_numpy(array).dtype
        assert np.array_equal(found[name].numpy(), array)


def test_on_a_cpu_nothing_is_copied() -> None:
    array = np.arange(5)
    assert send({"a": array}, torch.device("cpu"))["a"].data_ptr() == array.ctypes.data
