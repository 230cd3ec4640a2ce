"""Labels of residues in a membrane: read from the files that have them, as the published network reads them."""

import functools
import math

import numpy as np
import pytest
from flax import nnx

from jaxprot.core.errors import CheckpointError, DownloadError, InputError
from jaxprot.core.residues import ALPHABET
from jaxprot.io.structures import read_structure
from jaxprot.proteinmpnn import membrane, predict, weights
from jaxprot.proteinmpnn.config import ProteinMPNNConfig
from jaxprot.proteinmpnn.featurize import LabelledFeatures, featurize, pad_features, parse_chains
from jaxprot.proteinmpnn.model import ProteinMPNN
from jaxprot.weights import inspect, module, portable, registry, torch_file
from jaxprot.weights.convert import fill, rename

NODE_KEYS = {
    "features.node_embedding.weight",
    "features.norm_nodes.weight",
    "features.norm_nodes.bias",
    "W_v.weight",
    "W_v.bias",
}
LABELS = {"membrane_global_v_48_020": 2, "membrane_residue_v_48_020": 3}


def published(cfg, seed=0):
    """Random tensors in the published layout: of CA-only and membrane files with the node features, all 123."""
    rng = np.random.default_rng(seed)
    rules = weights.MEMBRANE
    full = ProteinMPNNConfig.paper() if not cfg.ca_only else cfg
    shapes = module.shapes(module.Blueprint(lambda rngs: ProteinMPNN(full, rngs=rngs)))
    labelled = ProteinMPNNConfig(node_labels=3)
    shapes = {**module.shapes(module.Blueprint(lambda rngs: ProteinMPNN(labelled, rngs=rngs))), **shapes}
    out = {}
    for ours, shape in shapes.items():
        foreign = next(name for name in (rule.origin(ours) for rule in rules) if name)
        scale = 0.08 if ours.endswith(("kernel", "embedding")) else 0.1
        array = scale * rng.normal(size=shape) + ours.endswith("scale")
        out[foreign] = np.ascontiguousarray(array.T if ours.endswith("kernel") else array, np.float32)
    # Columns of labels that were trained are past the bound of the draw that they started from.
    table = rng.uniform(-1, 1, size=(128, 3)) * math.sqrt(6 / 131)
    out["features.node_embedding.weight"] = (table * np.array([3, 3, 3 if cfg.node_labels == 3 else 1])).astype("f4")
    return out


def write(path, tensors):
    torch_file.write_torch_file({"num_edges": 48, "noise_level": 0.2, "model_state_dict": tensors}, path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One file of every layout; names tell nothing."""
    folder = tmp_path_factory.mktemp("layouts")
    whole, each = published(ProteinMPNNConfig(node_labels=2)), published(ProteinMPNNConfig(node_labels=3))
    plain = {key: array for key, array in each.items() if key not in NODE_KEYS}
    ca_only = published(ProteinMPNNConfig.paper(ca_only=True))
    return {
        "OFFICIAL": write(folder / "a.pt", plain),
        "CA_ONLY": write(folder / "b.pt", ca_only),
        "whole": write(folder / "c.pt", whole),
        "each": write(folder / "d.pt", each),
    }


@pytest.fixture(scope="module")
def ubiquitin(example):
    return featurize(parse_chains(read_structure(example("ubiquitin"))))


@pytest.fixture(scope="module")
def labels(ubiquitin):
    return np.random.default_rng(3).integers(0, 3, len(ubiquitin.S)).astype(np.int32)


@pytest.fixture(scope="module")
def small():
    """`small(3)`: a small network that reads labels."""

    @functools.cache
    def make(node_labels):
        cfg = ProteinMPNNConfig(width=16, encoder_layers=1, decoder_layers=2, neighbours=8, node_labels=node_labels)
        return predict.Designer(ProteinMPNN(cfg, rngs=nnx.Rngs(0)), "small.pt")

    return make


def encode(model, features):
    return model.encode(features)


def encoder_in_numpy(tensors, edges, index, mask, labels):
    """Residue states after the encoder, float64, from the published tensors: written from the specification."""
    t = {key: np.asarray(array, np.float64) for key, array in tensors.items()}
    erf = np.vectorize(math.erf)

    def linear(name, x):
        return x @ t[f"{name}.weight"].T + t.get(f"{name}.bias", 0.0)

    def norm(name, x):
        centred = x - x.mean(-1, keepdims=True)
        return t[f"{name}.weight"] * centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) + t[f"{name}.bias"]

    def gelu(x):
        return 0.5 * x * (1 + erf(x / math.sqrt(2)))

    one_hot = np.eye(3)[labels]
    nodes = linear("W_v", norm("features.norm_nodes", linear("features.node_embedding", one_hot)))
    for number in range(3):
        layer = f"encoder_layers.{number}."

        def message(first, second, third, nodes, edges, layer=layer):
            own = np.broadcast_to(nodes[:, None], edges.shape)
            x = np.concatenate([own, edges, nodes[index]], axis=-1)
            return linear(layer + third, gelu(linear(layer + second, gelu(linear(layer + first, x)))))

        pair = mask[:, None] * mask[index]
        update = (message("W1", "W2", "W3", nodes, edges) * pair[..., None]).sum(1) / 30
        nodes = norm(layer + "norm1", nodes + update)
        inner = linear(layer + "dense.W_out", gelu(linear(layer + "dense.W_in", nodes)))
        nodes = norm(layer + "norm2", nodes + inner) * mask[:, None]
        edges = norm(layer + "norm3", edges + message("W11", "W12", "W13", nodes, edges))
    return nodes


def first_edges(model, features):
    distance, index, _ = model.features.graph(features)
    return model.edge_projection(model.features(features, distance, index)), index


def check_encoder(path, features, labels):
    designer = predict.load(path)
    labelled = LabelledFeatures(*features, labels)
    edges, index = (np.asarray(a) for a in designer.runner(first_edges, labelled))
    _, tensors, _ = inspect.read(path)
    wanted = encoder_in_numpy(tensors, edges.astype(np.float64), index, features.mask.astype(np.float64), labels)
    found = np.asarray(designer.runner(encode, labelled).nodes)
    np.testing.assert_allclose(found, wanted, atol=5e-5)
    other = np.asarray(designer.runner(encode, labelled._replace(labels=(labels + 1) % 3)).nodes)
    assert np.abs(other - found).max() > 0.01


def test_encoder_with_labels_equals_an_evaluation_in_double_precision(files, ubiquitin, labels):
    hole = ubiquitin._replace(X=ubiquitin.X.copy(), mask=ubiquitin.mask.copy())
    hole.X[20], hole.mask[20] = 0, 0
    check_encoder(files["each"], hole, labels)


@pytest.mark.slow
@pytest.mark.parametrize("name", LABELS)
def test_published_files_equal_an_evaluation_in_double_precision(name, ubiquitin, labels):
    try:
        path = registry.fetch(registry.entries()[f"proteinmpnn:{name}"])
    except DownloadError as error:
        pytest.skip(f"published weights cannot be fetched: {error}")
    assert predict.load(path).config == ProteinMPNNConfig(node_labels=LABELS[name])
    check_encoder(path, ubiquitin, labels)


def test_without_anything_behind_the_labels_the_network_is_the_plain_one(files, ubiquitin, labels, tmp_path):
    _, tensors, _ = inspect.read(files["each"])
    zeros = {key: np.zeros_like(tensors[key]) for key in ("W_v.weight", "W_v.bias")}
    silent = predict.load(write(tmp_path / "silent.pt", {**tensors, **zeros}))
    found = np.asarray(silent.runner(encode, LabelledFeatures(*ubiquitin, labels)).nodes)
    wanted = np.asarray(predict.load(files["OFFICIAL"]).runner(encode, ubiquitin).nodes)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_padding_changes_nothing(small, ubiquitin, labels):
    features = LabelledFeatures(*ubiquitin, labels)
    alone = np.asarray(small(3).runner(encode, features).nodes)
    padded = np.asarray(small(3).runner(encode, pad_features(features, 96)).nodes)
    np.testing.assert_allclose(padded[: len(labels)], alone, atol=2e-5)


@pytest.mark.parametrize(
    ("file", "table"), [("OFFICIAL", "OFFICIAL"), ("CA_ONLY", "CA_ONLY"), ("whole", "MEMBRANE"), ("each", "MEMBRANE")]
)
def test_every_layout_fits_one_table_and_loads_as_what_it_is(files, file, table, tmp_path):
    assert [match.converter for match in inspect.examine(files[file]).matches] == [
        f"jaxprot.proteinmpnn.weights:{table}"
    ]
    wanted = {
        "OFFICIAL": ProteinMPNNConfig(),
        "CA_ONLY": ProteinMPNNConfig(ca_only=True),
        "whole": ProteinMPNNConfig(node_labels=2),
        "each": ProteinMPNNConfig(node_labels=3),
    }[file]
    assert predict.load(files[file]).config == wanted
    inspect.convert(files[file], tmp_path / "ours.safetensors")
    again = predict.load(tmp_path / "ours.safetensors")
    assert again.config == wanted
    for one, other in zip(again.runner.leaves, predict.load(files[file]).runner.leaves, strict=True):
        np.testing.assert_array_equal(one, other)


def test_labels_are_never_left_out_in_silence(files, ubiquitin, labels, tmp_path):
    _, tensors, _ = inspect.read(files["each"])
    rules, ignored = registry.table("jaxprot.proteinmpnn.weights:OFFICIAL")
    shapes = module.shapes(module.Blueprint(lambda rngs: ProteinMPNN(ProteinMPNNConfig(), rngs=rngs)))
    with pytest.raises(CheckpointError, match="5 tensors unexpected"):
        fill(shapes, tensors, rules, ignored, "d.pt")
    with pytest.raises(ValueError, match="reads labels"):
        predict.load(files["each"]).runner(encode, ubiquitin)
    with pytest.raises(ValueError, match="reads none"):
        predict.load(files["OFFICIAL"]).runner(encode, LabelledFeatures(*ubiquitin, labels))
    # What versions without labels made of such a file.
    ours = rename(inspect.read(files["OFFICIAL"])[1], weights.OFFICIAL)
    header = {"system": "proteinmpnn", "source": {"file": "global_label_membrane_mpnn_v_48_020.pt", "values": {}}}
    portable.save(tmp_path / "old.safetensors", ours, header)
    with pytest.raises(CheckpointError, match="convert the original file again"):
        predict.load(tmp_path / "old.safetensors")


def test_a_file_that_does_not_tell_its_labels(files, tmp_path):
    _, tensors, _ = inspect.read(files["each"])
    untrained = tensors["features.node_embedding.weight"] / 3
    assert weights.trained_labels(untrained.T) == 0
    path = write(tmp_path / "unknown.pt", {**tensors, "features.node_embedding.weight": untrained})
    with pytest.raises(CheckpointError, match=r"unknown\.pt: reads labels of residues, but does not tell which"):
        predict.load(path)
    assert predict.load(path, node_labels=2).config.node_labels == 2
    path = path.rename(tmp_path / "per_residue_label_own.pt")
    assert predict.load(path).config.node_labels == 3


def test_labels_by_name(small, example):
    path, name = example("ubiquitin"), "ubiquitin"
    given = {"membrane_buried": {name: {"A": [3, 5]}}, "membrane_interface": {name: {"A": [4]}}}
    _, inputs = small(3).inputs(path, **given)
    assert inputs.labels[:6].tolist() == [0, 0, 2, 1, 2, 0] and inputs.labels.sum() == 5
    profile = small(3).profile(path, **given).log_probs
    direct = LabelledFeatures(*inputs.features(), inputs.labels)
    wanted = np.asarray(small(3).runner(predict.unconditional_profile, direct))
    np.testing.assert_allclose(profile, wanted, atol=2e-5)
    none = small(3).profile(path, membrane=False).log_probs
    assert np.abs(none - profile).max() > 1e-4
    scores = [float(small(2).score(path, membrane=lies).score[0, 0]) for lies in (True, False)]
    assert scores[0] != scores[1]
    with pytest.raises(InputError, match="A:4 is named as buried and as interface"):
        small(3).inputs(path, membrane_buried={name: {"A": [4]}}, membrane_interface={name: {"A": [4]}})
    with pytest.raises(InputError, match=r"buried positions of 'ubiquitin': position 77 of chain 'A'"):
        small(3).inputs(path, membrane_buried={name: {"A": [77]}})


@pytest.mark.parametrize(
    ("node_labels", "whole", "each", "message"),
    [
        (0, True, False, "reads no membrane labels"),
        (0, None, True, "reads no membrane labels"),
        (2, None, False, "whether the protein lies in a membrane; give --membrane yes or no"),
        (2, None, True, "labels of single residues are for the weights proteinmpnn:membrane_residue_v_48_020"),
        (3, None, False, "which residues lie in the membrane; give --membrane-buried"),
        (3, True, False, "one label for the whole protein is for the weights proteinmpnn:membrane_global_v_48_020"),
        (3, True, True, "not both"),
    ],
)
def test_labels_that_are_missing_or_not_read(node_labels, whole, each, message):
    with pytest.raises(InputError, match=message):
        membrane.labels_for(node_labels, 2, whole, np.zeros(2, np.int32) if each else None, "x.pt")


@pytest.mark.slow
@pytest.mark.golden
def test_the_published_labels_make_a_membrane_protein_hydrophobic(shared):
    """Which number stands for which label: on bacteriorhodopsin, a bundle of helices in the lipid."""
    from jaxprot.proteinmpnn.data import read_chain_archive

    try:
        ours = {name: predict.load(registry.fetch(registry.entries()[f"proteinmpnn:{name}"])) for name in LABELS}
    except DownloadError as error:
        pytest.skip(f"published weights cannot be fetched: {error}")
    archive = shared / "data" / "structures" / "val.npz"
    if not archive.is_file():
        pytest.skip("no archive of chains")
    with np.load(archive) as stored:
        number = stored["entry"].tolist().index("2BRD")
    features = read_chain_archive(archive)[number]
    ca = features.X[:, 1]
    outer = features.X[:, 1] + 1.5 * (features.X[:, 1] - (features.X[:, 0] + features.X[:, 2]) / 2)
    close = np.linalg.norm(outer[:, None] - outer[None], axis=-1) < 10
    axis = np.linalg.svd(ca - ca.mean(0), full_matrices=False)[2][0]
    # The helices stand along the longest axis; the middle of the bundle lies in the lipid, its outside touches it.
    middle = np.abs((ca - ca.mean(0)) @ axis) < 12
    facing = middle & (close.sum(1) < np.median(close.sum(1))) & (features.mask > 0)
    assert facing.sum() > 20
    greasy = [ALPHABET.index(letter) for letter in "VILMFA"]

    def share(name, label):
        labelled = LabelledFeatures(*features, np.full(len(ca), label, np.int32))
        log_probs = np.asarray(ours[name].runner(predict.unconditional_profile, labelled))
        return float(np.exp(log_probs[facing])[:, greasy].sum(1).mean())

    soluble, lipid = (share("membrane_global_v_48_020", label) for label in (0, 1))
    assert lipid > soluble + 0.2
    other, interface, buried = (share("membrane_residue_v_48_020", label) for label in (0, 1, 2))
    assert buried > interface > other
