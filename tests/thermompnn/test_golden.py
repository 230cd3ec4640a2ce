"""ThermoMPNN and ThermoMPNN-D equal the published implementations (random weights in the official layout)."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.core.residues import STANDARD
from jaxprot.io.structures import read_structure
from jaxprot.proteinmpnn.featurize import featurize, parse_chains
from jaxprot.thermompnn import predict

pytestmark = pytest.mark.golden
BLOCK = {"atol": 2e-5, "rtol": 1e-5}
DDG = {"atol": 5e-4, "rtol": 0}


@pytest.fixture(scope="module")
def folder(goldens):
    return goldens("thermompnn")


@pytest.fixture(scope="module")
def predictor(golden_checkpoint):
    return predict.load(golden_checkpoint("thermoMPNN_default.pt"))


def blocks(model, features):
    _, states, letters = model.states(features)
    attended = model.head.attended(model.residue_vectors(states, letters))
    raw = model.head.raw(attended)
    out = {f"dec{i}_h_V": state for i, state in enumerate(states, 1)}
    return out | {
        "W_s_S": letters,
        "log_probs_all_visible": model.backbone.log_probs(states[-1]),
        "light_attention_out": attended,
        "both_out": raw,
        "ddg_out": model.head.scale(raw[..., None])[..., 0],
        "ddG": model.ddg(features),
    }


@pytest.mark.parametrize("name", ["2OCJ", "edge"])
def test_blocks(predictor, folder, name):
    golden = np.load(folder / f"thermompnn_{name}_A.npz")
    structure = read_structure(folder / "inputs" / f"{name}.pdb", models="all")
    features = featurize(parse_chains(structure, "A", compat=True), sort=False)
    ours = jax.device_get(predictor.runner(blocks, jax.tree.map(jnp.asarray, features)))
    letter = features.S < 20
    for key, value in ours.items():
        if key != "ddG":
            np.testing.assert_allclose(value[letter], golden[key][letter], err_msg=key, **BLOCK)
    known = np.isfinite(golden["ddG"]).all(axis=1)
    np.testing.assert_array_equal(known, letter)
    np.testing.assert_allclose(ours["ddG"][known], golden["ddG"][known], **DDG)
    zero_shot = np.asarray(predictor.runner(lambda model, f: model.zero_shot(f), features))
    np.testing.assert_allclose(zero_shot, -golden["log_probs_all_visible"][:, :20], atol=2e-4)


def test_scan_equals_the_reference_table_row_by_row(predictor, folder):
    scan = predictor.scan(folder / "inputs" / "2OCJ.pdb", "A", samples=0)
    ours = scan.columns()
    with open(folder / "thermompnn_2OCJ_A_ssm.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(ours["wt"]) == 3880
    for column, name in (("index", "position"), ("wt", "wildtype"), ("mut", "mutation"), ("chain", "chain")):
        assert [str(v) for v in ours[column]] == [row[name] for row in rows]
    np.testing.assert_allclose(ours["ddg_kcal_mol"], [float(row["ddG_pred"]) for row in rows], **DDG)


@pytest.mark.parametrize(
    ("checkpoint", "mode"), [("ThermoMPNN-ens1.ckpt", "additive"), ("ThermoMPNN-D-ens1.ckpt", "epistatic")]
)
def test_doubles(golden_checkpoint, folder, checkpoint, mode):
    golden = np.load(folder / "thermompnn_d_1VII.npz")
    model = predict.load(golden_checkpoint(checkpoint))
    doubles = model.doubles(folder / "inputs" / "1VII.pdb", mode=mode, max_distance=7.0, max_ddg=None)
    assert len(doubles.ddg) == int(golden[f"{mode}_count_total"]) == 44042
    wild = doubles.sites.letter
    name = [
        f"{wild[i]}{i + 1}{STANDARD[a]}:{wild[j]}{j + 1}{STANDARD[b]}"
        for (i, j), (a, b) in zip(doubles.positions, doubles.mutants, strict=True)
    ]
    ours = dict(zip(name, doubles.ddg, strict=True))
    wanted = [ours[str(m)] for m in golden[f"{mode}_mut"]]
    assert len(wanted) == 20000
    np.testing.assert_allclose(wanted, golden[f"{mode}_ddG"], **DDG)
    first = doubles.positions[0]
    assert doubles.distance[0] == pytest.approx(golden["ca_distance"][tuple(first)], abs=1e-4)


def test_single_mutations_of_the_second_version(golden_checkpoint, folder):
    golden = np.load(folder / "thermompnn_d_1VII.npz")
    scan = predict.load(golden_checkpoint("ThermoMPNN-ens1.ckpt")).scan(folder / "inputs" / "1VII.pdb", samples=0)
    np.testing.assert_allclose(scan.ddg, golden["single_ddG_L21"][:, :20], **DDG)


def test_epistatic_weights_say_what_they_cannot_do(golden_checkpoint, folder):
    model = predict.load(golden_checkpoint("ThermoMPNN-D-ens1.ckpt"))
    with pytest.raises(InputError, match="double-mutant model"):
        model.scan(folder / "inputs" / "1VII.pdb")
    single = predict.load(golden_checkpoint("ThermoMPNN-ens1.ckpt"))
    with pytest.raises(InputError, match="epistatic"):
        single.doubles(folder / "inputs" / "1VII.pdb", mode="epistatic")
