import ml_dtypes
import numpy as np
import pytest

from jaxprot.core.errors import CheckpointError
from jaxprot.weights.convert import Rule, fill, rename

RULES = (
    Rule(r"encoder_layers\.(\d+)\.W(\d)\.weight", r"encoder.\1.w\2.kernel", "T"),
    Rule(r"encoder_layers\.(\d+)\.norm(\d)\.weight", r"encoder.\1.norm\2.scale"),
    Rule(r"W_s\.weight", ("letters.known", "letters.unknown"), (lambda a: a[:2], lambda a: a[2:])),
)
EXPECTED = {
    "encoder.0.w1.kernel": (2, 3),
    "encoder.0.norm1.scale": (3,),
    "letters.known": (2, 4),
    "letters.unknown": (1, 4),
}


def tensors():
    return {
        "encoder_layers.0.W1.weight": np.arange(6, dtype=np.float64).reshape(3, 2),
        "encoder_layers.0.norm1.weight": np.ones(3, ml_dtypes.bfloat16),
        "W_s.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
        "metrics.r2": np.zeros(()),
    }


def test_every_parameter_is_filled_in_order_and_in_float32():
    ours = fill(EXPECTED, tensors(), RULES, ignored=[r"metrics\..*"])
    assert list(ours) == list(EXPECTED)
    assert {array.dtype for array in ours.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(ours["encoder.0.w1.kernel"], tensors()["encoder_layers.0.W1.weight"].T)
    np.testing.assert_array_equal(ours["letters.unknown"], [[8, 9, 10, 11]])


def test_all_problems_are_listed_together():
    bad = tensors()
    del bad["encoder_layers.0.norm1.weight"]
    bad["encoder_layers.0.W1.weight"] = np.zeros((2, 2))
    bad["W_s.weight"] = np.full((3, 4), np.nan)
    bad["other.weight"] = np.zeros(5)
    bad["encoder_layers.7.W1.weight"] = np.zeros((3, 2))
    with pytest.raises(CheckpointError) as caught:
        fill(EXPECTED, bad, RULES, ignored=[r"metrics\..*"], source="x.pt")
    lines = str(caught.value).splitlines()
    assert lines[0] == "x.pt: 1 tensor missing, 2 unexpected, 1 of wrong shape, 2 not finite"
    text = " ".join(" ".join(lines).split())
    assert "missing encoder.0.norm1.scale (from encoder_layers.0.norm1.weight)" in text
    assert "unexpected other.weight (5,)" in text
    assert "encoder_layers.7.W1.weight (2, 3) (would be encoder.7.w1.kernel)" in text
    assert "encoder.0.w1.kernel (2, 2), expected (2, 3) (from encoder_layers.0.W1.weight)" in text
    assert "letters.known (from W_s.weight)" in text
    assert "jaxprot weights inspect" in lines[-1]


def test_a_parameter_filled_twice_is_an_error():
    rules = (*RULES, Rule(r"copy\.weight", "encoder.0.norm1.scale"))
    with pytest.raises(CheckpointError, match="1 tensor filled twice"):
        fill(EXPECTED, tensors() | {"copy.weight": np.ones(3)}, rules, ignored=[r"metrics\..*"])


def test_a_key_outside_the_table_is_an_error_unless_ignored():
    with pytest.raises(CheckpointError, match=r"metrics\.r2"):
        fill(EXPECTED, tensors(), RULES)


def test_long_lists_are_cut():
    many = {f"extra.{i}": np.zeros(1) for i in range(40)}
    with pytest.raises(CheckpointError, match="and 28 more"):
        fill({}, many, RULES)


def test_rename_needs_every_rule():
    ours = rename(tensors(), RULES, [r"metrics\..*"])
    assert set(ours) == set(EXPECTED)
    short = tensors()
    del short["W_s.weight"]
    with pytest.raises(CheckpointError, match=r"(?s)1 tensor missing.*W_s\.weight"):
        rename(short, RULES, [r"metrics\..*"])


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("encoder.2.norm1.scale", "encoder_layers.2.norm1.weight"),
        ("encoder.11.w3.kernel", "encoder_layers.11.W3.weight"),
        ("letters.unknown", "W_s.weight"),
        ("decoder.0.scale", None),
    ],
)
def test_origin_of_our_names(name, origin):
    assert next((found for found in (rule.origin(name) for rule in RULES) if found), None) == origin


def test_wrong_rules_are_told_at_once():
    with pytest.raises(ValueError, match="2 targets, 1 transforms"):
        Rule("a", ("b", "c"), ("T",))
    with pytest.raises(CheckpointError, match="unknown transform"):
        fill({"b": (1,)}, {"a": np.zeros(1)}, [Rule("a", "b", "flip")])
