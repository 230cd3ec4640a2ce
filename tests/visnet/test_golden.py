"""Against the published program: energies, forces and what is on the way."""

import numpy as np
import pytest

from jaxprot.visnet import neighbours, predict

STAGES = {
    "rbf": ("rbf", 1e-5),
    "sph": ("sphere", 1e-5),
    "x_neighbor_embedding": ("x_embedding", 1e-5),
    "edge_attr0": ("f_embedding", 1e-5),
    "edge_attr_layer0": ("f_0", 1e-5),
    **{f"x_layer{i}": (f"x_{i}", 1e-5) for i in range(6)},
    **{f"vec_layer{i}": (f"vec_{i}", 1e-5) for i in range(6)},
    "x_out": ("x", 1e-5),
    "vec_out": ("vec", 1e-4),
}
ON_PAIRS = ("rbf", "sph", "edge_attr0", "edge_attr_layer0")
UNITS = {"a": ("ala", "trp", "pro", "cys", "acenme"), "b": ("ala", "trp"), "c": ("ala", "trp")}


@pytest.fixture(scope="module")
def folder(goldens):
    return goldens("ai2bmd")


@pytest.fixture(scope="module")
def loaded(folder):
    found = {}

    def load(config):
        if config not in found:
            net = predict.load(folder / f"visnet_{config}.ckpt").module
            found[config] = predict.Predictor(net, sizes=(36,))  # one program for all units
        return found[config]

    return load


@pytest.mark.golden
@pytest.mark.parametrize("config", ["a", "b", "c"])
def test_energies_and_forces(config, folder, loaded):
    predictor = loaded(config)
    units = [np.load(folder / f"visnet_{config}_{unit}.npz") for unit in UNITS[config]]
    found = predictor.energy_and_forces([stored["z"] for stored in units], [stored["pos"] for stored in units])
    for row, stored in enumerate(units):
        own = predict.references(predictor, stored["z"])
        bare = stored["energy"].astype(float).item() - own
        # The stored sum is of float32, so its last digit is that of the whole energy.
        digit = np.spacing(np.abs(stored["energy"]).max())
        assert abs(found.interaction[row] - bare) <= max(1e-5 * abs(bare), 2e-5) + digit
        np.testing.assert_allclose(found.energy[row], found.interaction[row] + own, rtol=1e-12)
        np.testing.assert_allclose(found.forces[row], stored["forces"], atol=2e-6, rtol=0)


@pytest.mark.golden
@pytest.mark.parametrize("config", ["a", "b", "c"])
def test_what_is_on_the_way(config, folder, loaded):
    predictor = loaded(config)
    stored = np.load(folder / f"visnet_{config}_trp.npz" if config != "a" else folder / "visnet_a_ala.npz")
    molecules = neighbours.Molecules(stored["z"][None], stored["pos"][None])
    found = predictor.runner(lambda net, m: net.activations(m), molecules)
    where = neighbours.pairs(molecules, predictor.config.cutoff, predictor.config.max_neighbors)
    source, target = stored["edge_index"]
    mask = np.zeros(np.asarray(where.mask[0]).shape, bool)
    mask[target, source] = True
    np.testing.assert_array_equal(where.mask[0], mask)
    np.testing.assert_allclose(where.distance[0][target, source], stored["edge_weight"], atol=1e-6)
    compared = 0
    for theirs, (ours, tolerance) in STAGES.items():
        if theirs in stored:
            value = np.asarray(found[ours][0])
            value = value[target, source] if theirs in ON_PAIRS else value
            np.testing.assert_allclose(value, stored[theirs], atol=tolerance, rtol=0, err_msg=theirs)
            compared += 1
    assert compared == 7 + 2 * predictor.config.layers
    np.testing.assert_allclose(found["atomic"][0], stored["atomic_raw"][:, 0], atol=1e-5, rtol=0)


@pytest.mark.golden
@pytest.mark.slow
def test_fragments_of_chignolin(folder):
    stored = np.load(folder / "fragments_chig.npz")
    pieces = [slice(a, b) for a, b in zip(stored["frag_start"], stored["frag_end"], strict=True)]
    predictor = predict.load(folder / "visnet_a.ckpt")
    found = predictor.energy_and_forces([stored["frag_z"][p] for p in pieces], [stored["frag_pos"][p] for p in pieces])
    np.testing.assert_allclose(found.energy, stored["frag_energy"][:, 0], rtol=1e-5)
    for piece, forces in zip(pieces, found.forces, strict=True):
        np.testing.assert_allclose(forces, stored["frag_forces"][piece], atol=2e-6, rtol=0)


@pytest.mark.golden
def test_cap_is_counted(folder, loaded, caplog):
    stored = np.load(folder / "visnet_c_trp.npz")
    loaded("c")._tell_cap([stored["pos"]])
    molecules = neighbours.Molecules(stored["z"][None], stored["pos"][None])
    count = int(neighbours.over_cap(molecules, 5.0, 12)[0])
    assert 0 < count <= len(stored["z"])
    assert f"{count} atoms in 1 molecules have more than 12 neighbours" in caplog.text
