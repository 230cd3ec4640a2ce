"""JSON inputs of the published design tool."""

import json

import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.core.residues import ALPHABET
from jaxprot.io.structures import read_structure
from jaxprot.proteinmpnn.featurize import BackboneChain, featurize, parse_chains
from jaxprot.proteinmpnn.inputs import (
    NO_LOG_ODDS,
    design_inputs,
    homo_oligomer_ties,
    read_parsed_jsonl,
    write_inputs,
    write_parsed_jsonl,
)


def chain(name, sequence):
    n = len(sequence)
    rng = np.random.default_rng(n)
    return BackboneChain(
        id=name,
        sequence=sequence,
        xyz=rng.normal(size=(n, 4, 3)).astype(np.float32),
        resid=np.arange(1, n + 1, dtype=np.int32),
        icode=np.zeros(n, "U1"),
        present=np.ones(n, bool),
        resn_list=tuple(map(str, range(1, n + 1))),
    )


@pytest.fixture
def chains():
    return [chain("A", "ACDE"), chain("B", "FGH"), chain("C", "IKLM")]


def test_nothing_given_restricts_nothing_but_x(chains):
    inputs = design_inputs("s", chains)
    assert inputs.designed == ("A", "B", "C") and inputs.fixed == {} and inputs.tied_groups == []
    assert inputs.omit_AA.tolist() == [0.0] * 20 + [1.0]
    assert (inputs.tied_weights == 1).all() and (inputs.pssm_log_odds == NO_LOG_ODDS).all() and not inputs.has_log_odds
    for array in (inputs.omit_by_pos, inputs.bias_by_res, inputs.pssm_bias):
        assert array.shape == (11, 21) and array.dtype == np.float32 and not array.any()


def test_everything_lands_on_the_concatenated_layout(chains, tmp_path):
    files = {
        "designed": {"s": [["C", "A"], ["B"]], "other": [["A"], []]},
        "fixed": {"s": {"A": [1, 4], "B": []}},
        "tied": {"s": [{"A": [1], "C": [1]}, {"A": [[2, 3], [1.0, -0.5]], "C": [2]}]},
        "omit": {"s": {"A": [[[1, 2], "GP"], [[2], "C"]], "B": []}},
        "bias_AA": {"A": -1.1, "W": 2},
        "bias_by_res": {"s": {"C": np.arange(84).reshape(4, 21).tolist()}},
        "pssm": {"s": {"C": {"pssm_coef": [0.1, 0.2, 0.3, 0.4], "pssm_bias": np.full((4, 21), 1 / 21).tolist()},
                       "B": {"pssm_log_odds": np.full((3, 21), -2).tolist()}}},
    }  # fmt: skip
    for key, value in files.items():
        write_inputs(value, tmp_path / f"{key}.jsonl")
    inputs = design_inputs("s", chains, omit_AA="CX", **{key: tmp_path / f"{key}.jsonl" for key in files})
    from_objects = design_inputs("s", chains, omit_AA="CX", **files)

    assert [c.id for c in inputs.chains] == ["A", "C", "B"] and inputs.designed == ("A", "C")
    assert inputs.features().design.tolist() == [0, 1, 1, 0, 1, 1, 1, 1, 0, 0, 0]
    assert inputs.tied_groups == [[0, 4], [1, 2, 5]]
    assert inputs.tied_weights[:6].tolist() == [1, 1, -0.5, 1, 1, 1]
    assert [sorted(ALPHABET[i] for i in np.flatnonzero(row)) for row in inputs.omit_by_pos[:3]] == [
        ["G", "P"], ["C", "G", "P"], []]  # fmt: skip
    assert inputs.bias_AA[0] == np.float32(-1.1) and inputs.bias_AA[18] == 2 and np.count_nonzero(inputs.bias_AA) == 2
    np.testing.assert_array_equal(inputs.bias_by_res[4:8], np.arange(84).reshape(4, 21))
    assert not inputs.bias_by_res[:4].any() and not inputs.bias_by_res[8:].any()
    np.testing.assert_allclose(inputs.pssm_coef, [0, 0, 0, 0, 0.1, 0.2, 0.3, 0.4, 0, 0, 0])
    assert (inputs.pssm_log_odds[8:] == -2).all() and inputs.has_log_odds
    assert inputs.omit_AA.sum() == 2
    for field in ("omit_by_pos", "bias_by_res", "pssm_bias", "tied_weights"):
        np.testing.assert_array_equal(getattr(inputs, field), getattr(from_objects, field))


def test_unresolved_residues_of_ties_are_named(chains, caplog):
    ties = {"s": [{"A": [i], "C": [i]} for i in range(1, 5)]}
    design_inputs("s", chains, tied=ties)
    assert not caplog.records
    chains[0].xyz[2] = np.nan
    chains[2].xyz[3, 0] = np.nan
    design_inputs("s", chains, tied=ties)
    (record,) = caplog.records
    assert record.getMessage().endswith("their partners get it: A:3, C:4")


def test_chains_named_nowhere_are_left_out(chains):
    inputs = design_inputs("s", chains, designed={"s": [["C"], ["A"]]})
    assert [c.id for c in inputs.chains] == ["C", "A"] and len(inputs.features().S) == 8
    assert design_inputs("s", chains, designed=["B"]).designed == ("B",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fixed": {"t": {}}}, "no fixed positions for structure 's'; there are entries for t"),
        ({"fixed": {"s": {"Z": [1]}}}, "no chain 'Z'; chains: A, B, C"),
        ({"fixed": {"s": {"A": [5]}}}, "position 5 of chain 'A' is outside 1..4"),
        ({"fixed": {"s": {"A": [0]}}}, "position 0 .* start at 1"),
        ({"fixed": {"s": {"A": [1.5]}}}, "1.5 is no position"),
        ({"fixed": {"s": {"A": [10**400]}}}, "outside 1..4"),
        ({"fixed": {"s": [1]}}, "expected a JSON object"),
        ({"designed": {"s": [["A"]]}}, r"expected \[\[designed chains\], \[fixed chains\]\]"),
        ({"designed": {"s": [["A"], ["A"]]}}, "'A' is listed as designed and as fixed"),
        ({"designed": {"s": [["Q"], []]}}, "no chain 'Q'"),
        ({"tied": {"s": {"A": [1]}}}, "expected a list of groups"),
        ({"tied": {"s": [{"A": [1], "B": [9]}]}}, "group 1: position 9"),
        ({"tied": {"s": [{"A": [1]}, {"A": [1]}]}}, "group 2: a position is tied twice"),
        ({"tied": {"s": [{"A": [[1, 2], [1.0]]}]}}, r"expected \[\[positions\], \[weights\]\]"),
        ({"omit": {"s": {"A": [[[1], "GJ"]]}}}, "'J' is no letter"),
        ({"omit": {"s": {"A": [3]}}}, r"expected \[\[positions\], letters\]"),
        ({"omit_AA": "x"}, "omit_AA: 'x' is no letter"),
        ({"omit_AA": "ACDEFGHIKLMNPQRSTVWYX"}, "omit_AA: all twenty amino acids are omitted"),
        (
            {"omit_AA": "ACDEFGHIKLX", "omit": {"s": {"A": [[[2], "MNPQRSTVWY"]]}}},
            "position 2 of chain 'A' has no amino",
        ),
        ({"bias_AA": {"ALA": 1}}, "'ALA' is no letter"),
        ({"bias_AA": {"A": "1"}}, "is no number"),
        ({"bias_by_res": {"s": {"B": [[0] * 21] * 4}}}, r"shape \(4, 21\), expected \(3, 21\)"),
        ({"bias_by_res": {"s": {"B": [[0], [1, 2]]}}}, "expected numbers"),
        ({"bias_by_res": {"s": {"B": [[float("nan")] * 21] * 3}}}, "NaN"),
        ({"pssm": {"s": {"B": {"pssm": []}}}}, "unknown key 'pssm'"),
    ],
)
def test_mistakes_are_named(chains, options, message):
    with pytest.raises(InputError, match=message):
        design_inputs("s", chains, **options)


def test_homo_oligomers(chains):
    groups = homo_oligomer_ties([chains[0], chains[2]])
    assert groups[1] == {"A": [2], "C": [2]}
    assert design_inputs("s", [chains[0], chains[2]], tied={"s": groups}).tied_groups == [[i, i + 4] for i in range(4)]
    with pytest.raises(InputError, match="same length.*A: 4, B: 3"):
        homo_oligomer_ties(chains)


def test_parsed_structures_round_trip(example, tmp_path):
    parsed = parse_chains(read_structure(example("ubiquitin")))
    parsed[0].xyz[3, 3] = np.nan
    write_parsed_jsonl({"ubiquitin": parsed, "again": parsed}, tmp_path / "parsed.jsonl")
    first = json.loads((tmp_path / "parsed.jsonl").read_text().splitlines()[0])
    assert set(first) == {"seq_chain_A", "coords_chain_A", "name", "num_of_chains", "seq"}
    assert first["coords_chain_A"]["N_chain_A"][0] == [float(str(v)) for v in parsed[0].xyz[0, 0]]
    back = read_parsed_jsonl(tmp_path / "parsed.jsonl")
    assert list(back) == ["ubiquitin", "again"]
    for ours, theirs in zip(featurize(parsed), featurize(back["again"]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "is empty"), ("{]", "line 1: no JSON"), ("[1]", "expected a JSON object"), ('{"name": "x"}', "seq_chain_"),
     ('{"name": "x", "seq_chain_A": "AC", "coords_chain_A": {"CA_chain_A": [[0, 0, 0]]}}',
      "2 letters and CA coordinates"),
     ('{"name": "x", "seq_chain_A": "AC"}', "coords_chain_A: expected a JSON object")],
)  # fmt: skip
def test_bad_parsed_files(tmp_path, text, message):
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(InputError, match=message):
        read_parsed_jsonl(tmp_path / "x.jsonl")


@pytest.mark.golden
def test_inputs_of_the_stored_samples(goldens):
    folder = goldens("thermompnn")
    golden = np.load(folder / "mpnn_sampling.npz")
    chains = parse_chains(read_structure(folder / "inputs" / "5L33.pdb"), "A")
    omitted = [
        [[int(i) + 1], "".join(ALPHABET[a] for a in np.flatnonzero(row))]
        for i, row in enumerate(golden["omit_by_pos__in_omit_AA_mask"])
    ]
    pairs, weights = golden["tied_beta__in_tied_groups_0based"], golden["tied_beta__in_tied_beta"]
    tied = [{"A": [[int(i) + 1 for i in pair], [float(weights[i]) for i in pair]]} for pair in pairs]
    pssm = {
        "pssm_coef": golden["pssm_bias__in_pssm_coef"].tolist(),
        "pssm_bias": golden["pssm_bias__in_pssm_bias"].tolist(),
        "pssm_log_odds": golden["pssm_logodds__in_pssm_log_odds"].tolist(),
    }
    bias = dict(zip(ALPHABET, golden["biasAA_omitCM__in_bias_AA"].tolist(), strict=True))
    inputs = design_inputs(
        "5L33",
        chains,
        fixed={"5L33": {"A": golden["fixed__in_fixed_positions_1based"].tolist()}},
        tied={"5L33": tied},
        omit_AA="CMX",
        omit={"5L33": {"A": omitted}},
        bias_AA=bias,
        bias_by_res={"5L33": {"A": golden["bias_by_res__in_bias_by_res"].tolist()}},
        pssm={"5L33": {"A": pssm}},
    )
    expected = {
        "omit_by_pos": "omit_by_pos__in_omit_AA_mask",
        "bias_AA": "biasAA_omitCM__in_bias_AA",
        "bias_by_res": "bias_by_res__in_bias_by_res",
        "pssm_coef": "pssm_bias__in_pssm_coef",
        "pssm_bias": "pssm_bias__in_pssm_bias",
        "pssm_log_odds": "pssm_logodds__in_pssm_log_odds",
        "tied_weights": "tied_beta__in_tied_beta",
    }
    for field, key in expected.items():
        np.testing.assert_array_equal(getattr(inputs, field), golden[key].astype(np.float32), err_msg=field)
    assert inputs.tied_groups == pairs.tolist()
    frozen = np.flatnonzero(inputs.features().design == 0)
    np.testing.assert_array_equal(frozen + 1, golden["fixed__in_fixed_positions_1based"])
