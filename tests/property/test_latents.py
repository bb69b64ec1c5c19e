"""TopK and pooling over latents, against sorting in Python."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lexmax.index.kernels import read_only
from lexmax.retrieval.kernels.latents import largest, pooled

FEW = st.integers(-8, 8).map(lambda number: number / 4)  # many are equal
MATRICES = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12), elements=FEW)


@settings(deadline=None)
@given(activations=MATRICES, data=st.data(), total=st.booleans())
def test_largest_and_pooled(activations, data, total):
    k = data.draw(st.integers(1, activations.shape[1]))
    latents, values = np.empty((len(activations), k), np.int32), np.empty((len(activations), k), np.float32)
    largest(read_only(activations), k, latents, values)
    expected = [sorted(range(len(row)), key=lambda at, row=row: (-row[at], at))[:k] for row in activations.tolist()]
    assert latents.tolist() == expected
    assert values.tolist() == [[row[at] for at in found] for row, found in zip(activations.tolist(), expected, strict=True)]
    out = np.zeros(activations.shape[1], np.float32)
    pooled(read_only(latents), read_only(values), total, out)
    for latent, value in enumerate(out.tolist()):
        found = [row[latent] for row, kept in zip(activations.tolist(), expected, strict=True) if latent in kept]
        above = [number for number in found if number > 0]
        assert value == (sum(above) if total else max(above, default=0))
