"""Modules from named arrays: every array is used, every parameter filled, all numbers finite."""

import numpy as np
import pytest
from flax import nnx

from jaxprot.core.errors import CheckpointError
from jaxprot.weights import module


def build():
    return nnx.Linear(2, 3, rngs=nnx.Rngs(0))


@pytest.fixture
def tensors():
    return {"kernel": np.ones((2, 3), np.float32), "bias": np.zeros(3, np.float32)}


def test_what_goes_in_comes_out(tensors):
    back = module.flatten(nnx.split(module.assemble(build, tensors), nnx.Param)[1])
    assert back.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(back[name], array)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bias": None}, "1 missing (bias)"),
        ({"junk": np.ones(1)}, "1 unexpected (junk)"),
        ({"kernel": np.ones((3, 2))}, "1 of wrong shape (kernel)"),
        ({"bias": np.full(3, np.nan)}, "1 not finite (bias)"),
    ],
    ids=["missing", "unexpected", "wrong shape", "not finite"],
)
def test_every_misfit_is_told(tensors, change, told):
    given = {name: array for name, array in {**tensors, **change}.items() if array is not None}
    with pytest.raises(CheckpointError) as caught:
        module.assemble(build, given)
    assert told in str(caught.value)
