"""Pairs of direct and inverse mutations in the benchmark script."""

import runpy
from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture(scope="module")
def script(root):
    return runpy.run_path(str(root / "scripts" / "thermompnn_benchmarks.py"))


def write(folder, direct, inverse):
    head = "protein,resid,wt,mut,ddG\n"
    (folder / "ssym_direct.csv").write_text(head + "".join(f"{row}\n" for row in direct))
    (folder / "ssym_inverse.csv").write_text(head + "".join(f"{row}\n" for row in inverse))


def test_pairs_are_matched_by_residue_letters_and_value(script, tmp_path):
    direct = ["1AAAA,7,A,G,1.5", "1AAAA,9,L,V,0.3", "1BBBA,7,A,G,0.2"]
    inverse = ["1CCCA,7,G,A,-0.2", "1DDDA,9,V,L,-0.3", "1EEEA,7,G,A,-1.5"]
    write(tmp_path, direct, inverse)
    rows = [SimpleNamespace(source=np.arange(3)), SimpleNamespace(source=np.arange(3))]
    first, second = script["mates"](*rows, tmp_path)
    assert dict(zip(second.tolist(), first.tolist(), strict=True)) == {0: 2, 1: 1, 2: 0}


def test_a_pair_that_is_there_twice_is_refused(script, tmp_path):
    write(tmp_path, ["1AAAA,7,A,G,1.5", "1BBBA,7,A,G,1.5"], ["1CCCA,7,G,A,-1.5", "1EEEA,8,G,A,-1.5"])
    rows = [SimpleNamespace(source=np.arange(2)), SimpleNamespace(source=np.arange(2))]
    with pytest.raises(ValueError, match="twice"):
        script["mates"](*rows, tmp_path)


@pytest.mark.golden
def test_every_pair_of_ssym_opposes_its_mate(script, shared):
    from jaxprot.io.tables import read_table

    folder = shared / "data" / "stability"
    rows = [SimpleNamespace(source=np.arange(342)), SimpleNamespace(source=np.arange(342))]
    first, second = script["mates"](*rows, folder)
    direct, inverse = (read_table(folder / f"ssym_{name}.csv") for name in ("direct", "inverse"))
    assert len(first) == 342
    assert np.array_equal(direct["wt"][first], inverse["mut"][second])
    assert np.array_equal(direct["mut"][first], inverse["wt"][second])
    np.testing.assert_allclose(direct["ddG"][first], -inverse["ddG"][second], atol=1e-3)
