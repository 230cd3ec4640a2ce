"""`jaxprot proteinmpnn design|score` as users run them."""

import json
import shutil

import numpy as np
import pytest

from jaxprot.io.sequences import read_fasta
from jaxprot.io.structures import read_structure
from jaxprot.io.tables import read_table
from jaxprot.proteinmpnn.featurize import parse_chains
from jaxprot.proteinmpnn.inputs import write_inputs, write_parsed_jsonl
from jaxprot.proteinmpnn.selection import parse_selection, positions

NATIVE = "MQIFVKTLTGKTITLEVEPS"
FILES = {"designs.fasta", "designs.csv", "probs.npz", "run.json"}


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def short(fold):
    """A structure of 20 residues."""
    return fold("short.pdb", 20)


@pytest.fixture(scope="module")
def dimer(fold):
    """Two copies of 20 residues, 30 Å apart."""
    path = fold("dimer.pdb", 20)
    lines = [line for line in path.read_text().splitlines() if line.startswith("ATOM")]
    moved = [f"{line[:21]}B{line[22:30]}{float(line[30:38]) + 30:8.3f}{line[38:]}" for line in lines]
    path.write_text("\n".join([*lines, "TER", *moved, "END", ""]))
    return path


def test_design_writes_exactly_its_files(run, short, tmp_path):
    out = tmp_path / "out"
    arguments = ["-n", 2, "--temperature", "0.1,1", "--fixed", "A:1-4,20", "--omit-aa", "C", "-o", out]
    done = run("proteinmpnn", "design", short, *arguments)
    assert (done.code, done.err) == (0, "")
    assert names(out) == FILES
    table = read_table(out / "designs.csv")
    assert list(table) == ["sample", "temperature", "score", "global_score", "seq_recovery", "sequence"]
    assert table["temperature"].tolist() == pytest.approx([0.1] * 2 + [1.0] * 2)
    records = read_fasta(out / "designs.fasta")
    assert [len(records), records[0].sequence] == [5, NATIVE]
    assert records[0].name.startswith("short, score=")
    assert "designed_chains=['A']" in records[0].name and "model_name=proteinmpnn" in records[0].name
    assert [record.sequence for record in records[1:]] == table["sequence"].tolist()
    for sequence in table["sequence"]:
        assert sequence[:4] + sequence[-1] == NATIVE[:4] + NATIVE[-1]
        assert not set("CX") & set(sequence)
    same = [np.mean([a == b for a, b in zip(s[4:-1], NATIVE[4:-1], strict=True)]) for s in table["sequence"]]
    np.testing.assert_allclose(table["seq_recovery"], same, atol=1e-6)
    with np.load(out / "probs.npz") as probs:
        assert probs["probs"].shape == (4, 20, 21) and probs["S"].shape == (4, 20)
        assert list(probs["chain_order"]) == ["A"]
        np.testing.assert_allclose(probs["probs"].sum(-1), np.tile([0] * 4 + [1] * 15 + [0], (4, 1)), atol=1e-5)
    record = json.loads((out / "run.json").read_text())
    assert record["command"] == "proteinmpnn design" and record["weights"]["name"] == "proteinmpnn"


@pytest.mark.slow
def test_designs_ranked_by_stability(run, short, tmp_path):
    out = tmp_path / "out"
    assert run("proteinmpnn", "design", short, "-n", 2, "--temperature", 1, "--rank-by", "ddg", "-o", out).code == 0
    table = read_table(out / "designs.csv")
    assert (np.diff(table["ddg_kcal_mol"]) >= 0).all()
    assert "ddg=" in read_fasta(out / "designs.fasta")[1].name
    # By hand: the mean of the way there and the way back, each a sum over single mutations.
    import jaxprot
    from jaxprot.core.residues import STANDARD
    from jaxprot.proteinmpnn.featurize import featurize

    model = jaxprot.load("thermompnn")
    features = featurize(parse_chains(read_structure(short)))
    apply, leaves = model.pure()
    design = np.array([STANDARD.index(x) for x in table["sequence"][0]], np.int32)
    rows = np.arange(20)
    there = np.asarray(apply(leaves, features))[rows, design].sum()
    back = np.asarray(apply(leaves, features._replace(S=design)))[rows, features.S].sum()
    np.testing.assert_allclose(table["ddg_kcal_mol"][0], (there - back) / 2, atol=1e-3)
    assert json.loads((out / "run.json").read_text())["stability_weights"]["name"] == "thermompnn"
    assert run("proteinmpnn", "design", short, "-n", 2, "--rank-by", "score", "-o", tmp_path / "b").code == 0
    assert (np.diff(read_table(tmp_path / "b" / "designs.csv")["score"]) >= 0).all()


@pytest.mark.slow
def test_chains_and_ties(run, dimer, tmp_path):
    arguments = ["proteinmpnn", "design", dimer, "-n", 2, "--temperature", 1, "-o"]
    assert run(*arguments, tmp_path / "tied", "--homo-oligomer").code == 0
    for sequence in read_table(tmp_path / "tied" / "designs.csv")["sequence"]:
        first, second = sequence.split("/")
        assert first == second
    assert run(*arguments, tmp_path / "one", "--design", "B").code == 0
    table = read_table(tmp_path / "one" / "designs.csv")
    assert all(len(sequence) == 20 for sequence in table["sequence"])
    native = read_fasta(tmp_path / "one" / "designs.fasta")[0].name
    assert "fixed_chains=['A'], designed_chains=['B']" in native
    assert run(*arguments, tmp_path / "alone", "--chains", "B").code == 0
    assert "fixed_chains=[]" in read_fasta(tmp_path / "alone" / "designs.fasta")[0].name


def test_files_of_the_published_tool(run, dimer, tmp_path):
    files = {
        "--chain-id-jsonl": {"dimer": [["A"], ["B"]]},
        "--fixed-jsonl": {"dimer": {"A": [1, 2], "B": []}},
        "--tied-jsonl": {"dimer": [{"A": [5, 6]}, {"A": [[7, 8], [1.0, 0.5]]}]},
        "--omit-jsonl": {"dimer": {"A": [[[10, 11], "GASTNQDEKRHPVILMFYW"]], "B": []}},
        "--bias-by-res-jsonl": {"dimer": {"A": np.eye(20, 21)[[17] * 20].tolist()}},
        "--pssm-jsonl": {"dimer": {"A": {"pssm_coef": [0.0] * 19 + [1.0], "pssm_bias": np.eye(21)[[3] * 20].tolist()}}},
    }
    arguments = ["--pssm-multi", 1]
    for option, content in files.items():
        path = tmp_path / f"{option.strip('-')}.jsonl"
        write_inputs(content, path)
        arguments += [option, path]
    (tmp_path / "bias.json").write_text('{"A": -5.0}')
    arguments += ["--bias-aa-json", tmp_path / "bias.json"]
    parsed = tmp_path / "parsed.jsonl"
    write_parsed_jsonl({"dimer": parse_chains(read_structure(dimer))}, parsed)
    for source, out in ((dimer, tmp_path / "a"), (parsed, tmp_path / "b")):
        done = run("proteinmpnn", "design", source, "-n", 2, *arguments, "--fixed", "A:3", "-o", out)
        assert done.code == 0, done.err
    a, b = (read_table(tmp_path / name / "designs.csv") for name in "ab")
    assert a["sequence"].tolist() == b["sequence"].tolist()
    for sequence in a["sequence"]:
        assert sequence[:3] == NATIVE[:3]
        assert sequence[4] == sequence[5] and sequence[6] == sequence[7]
        assert set(sequence[9:11]) == {"C"}
        assert sequence[19] == "E"
        assert "A" not in sequence[3:]


def test_several_structures_and_a_broken_one(run, short, dimer, tmp_path):
    folder = tmp_path / "inputs"
    folder.mkdir()
    for path in (short, dimer):
        shutil.copy(path, folder)
    (folder / "bad.pdb").write_text("nothing\n")
    chains = parse_chains(read_structure(short))
    write_parsed_jsonl({"p/q": chains, "short": chains}, folder / "parsed.jsonl")
    out = tmp_path / "out"
    done = run("proteinmpnn", "design", folder, "-n", 2, "-o", out)
    assert done.code == 1 and "bad.pdb" in done.err and done.err.startswith("jaxprot: 1 of 5")
    assert names(out) == {"short", "dimer", "p_q", "short-2", "run.json"}
    assert names(out / "p_q") == FILES - {"run.json"}


@pytest.mark.slow
def test_scores_and_profiles(run, short, tmp_path):
    fasta = tmp_path / "s.fasta"
    fasta.write_text(f">same\n{NATIVE}\n>poor\n{'W' * 20}\n>poor\n{'P' * 20}\n>native\n{'G' * 20}\n")
    out = tmp_path / "out"
    arguments = ["--draws", 4, "--unconditional", "--conditional", "--conditional-backbone", "-o", out]
    done = run("proteinmpnn", "score", short, "--fasta", fasta, *arguments)
    assert (done.code, done.err) == (0, "")
    kinds = ("unconditional", "conditional", "conditional_backbone")
    assert names(out) == {"scores.csv", "run.json", *(f"{kind}.npz" for kind in kinds)}
    table = read_table(out / "scores.csv")
    assert list(table)[:4] == ["structure", "sequence_name", "score", "score_sd"]
    assert table["sequence_name"].tolist() == ["native", "same", "poor", "poor-2", "native-2"]
    np.testing.assert_allclose(table["score"][0], table["score"][1], atol=1e-5)
    assert table["score"][2:].min() > table["score"][0]
    for kind in kinds:
        with np.load(out / f"{kind}.npz") as profile:
            assert profile["log_p"].shape == (20, 21)
            np.testing.assert_allclose(np.exp(profile["log_p"]).sum(-1), 1, atol=1e-4)


@pytest.mark.golden
def test_scores_with_published_weights(run, goldens, golden_checkpoint, tmp_path):
    folder = goldens("thermompnn")
    arguments = ["--weights", golden_checkpoint("v_48_020.pt"), "--unconditional", "-o", tmp_path]
    assert run("proteinmpnn", "score", folder / "inputs" / "5L33.pdb", "--draws", 1, *arguments).code == 0
    expected = np.load(folder / "mpnn_monomer.npz")["unconditional_log_probs"]
    with np.load(tmp_path / "unconditional.npz") as profile:
        np.testing.assert_allclose(profile["log_p"], expected, atol=2e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["design", "--temperature", "warm"], "give numbers"),
        (["design", "--temperature", "0"], "temperatures above 0"),
        (["design", "-n", "0"], "n >= 1"),
        (["design", "--fixed", "1-10"], "names no residues"),
        (["design", "--fixed", "A:77"], "has no residue 77"),
        (["design", "--fixed", "B:1"], "no chain 'B'"),
        (["design", "--design", "Q"], "no chain 'Q'"),
        (["design", "--chains", "Q"], "no chain 'Q'"),
        (["design", "--fixed-jsonl", "absent.jsonl"], "absent.jsonl: no such file"),
        (["design", "--omit-aa", "#"], "'#' is no letter"),
        (["design", "--homo-oligomer", "--tied-jsonl", "x"], "not both"),
        (["design", "--weights", "thermompnn"], "not of proteinmpnn"),
        (["design", "--rank-by", "ddg", "--stability-weights", "proteinmpnn"], "not of thermompnn"),
        (["score", "--draws", "0"], "at least one"),
        (["score", "--fasta", "absent.fa"], "absent.fa: no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_one_line_and_nothing_is_written(run, short, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    done = run("proteinmpnn", arguments[0], short, *arguments[1:], "-o", tmp_path / "out")
    assert done.code == 2 and message in done.err, done.err
    assert done.err.startswith("jaxprot: error: ") and done.err.count("\n") == 1
    assert not names(tmp_path)


def test_sequence_of_another_length(run, short, tmp_path):
    (tmp_path / "s.fasta").write_text(">a\nMQIF\n")
    done = run("proteinmpnn", "score", short, "--fasta", tmp_path / "s.fasta", "-o", tmp_path / "out")
    assert done.code == 2 and "sequence 'a' has chains of 4 letters" in done.err
    assert not (tmp_path / "out").exists()


def test_selection_by_author_numbers(fold):
    path = fold("numbers.pdb", 12, lambda line: f"{line[:22]}{int(line[22:26]) - 4:4d}{line[26:]}")
    path.write_text(path.read_text().replace(" A   6 ", " A   5A"))
    chains = parse_chains(read_structure(path))
    assert positions("A:-3--1", chains) == {"A": [1, 2, 3]}
    assert positions("A:5-7,-3", chains) == {"A": [1, 9, 10, 12]}  # 6 is a gap
    assert positions("A:5A", chains) == {"A": [10]}
    assert positions("A:5-5", chains) == {"A": [9, 10]}
    assert parse_selection("A:1 B:2-3;A:5") == {"A": [((1, ""), None), ((5, ""), None)], "B": [((2, ""), (3, ""))]}


def test_demo(run, tmp_path):
    assert run("demo", "proteinmpnn", "-o", tmp_path / "demo").code == 0
    assert names(tmp_path / "demo") == FILES


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A small network that reads a label of each residue, in a file."""
    import dataclasses

    from flax import nnx

    from jaxprot.proteinmpnn.config import ProteinMPNNConfig
    from jaxprot.proteinmpnn.model import ProteinMPNN
    from jaxprot.weights import module, portable

    cfg = ProteinMPNNConfig(width=16, encoder_layers=1, decoder_layers=2, neighbours=8, node_labels=3)
    tensors = module.flatten(nnx.state(ProteinMPNN(cfg, rngs=nnx.Rngs(0)), nnx.Param))
    path = tmp_path_factory.mktemp("weights") / "labelled.safetensors"
    portable.save(path, tensors, {"system": "proteinmpnn", "config": dataclasses.asdict(cfg)})
    return path


def test_labels_of_membrane_residues(run, short, labelled, tmp_path):
    arguments = ["proteinmpnn", "score", short, "--weights", labelled, "--draws", 1, "-o"]
    given = ["--membrane-buried", "A:3-8", "--membrane-interface", "A:2,9"]
    done = run(*arguments, tmp_path / "some", *given)
    assert done.code == 0, done.err
    assert run(*arguments, tmp_path / "none", "--membrane", "no").code == 0
    some, none = (read_table(tmp_path / name / "scores.csv")["score"][0] for name in ("some", "none"))
    assert some != none
    assert "A:3-8" in (tmp_path / "some" / "run.json").read_text()
    import jaxprot

    rows = {"membrane_buried": [3, 4, 5, 6, 7, 8], "membrane_interface": [2, 9]}
    sources = {name: {"short": {"A": positions}} for name, positions in rows.items()}
    wanted = jaxprot.load(labelled).score(short, draws=1, seed=0, **sources)
    assert some == pytest.approx(float(wanted.score[0, 0]), abs=1e-4)


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        (True, [], "which residues lie in the membrane; give --membrane-buried and --membrane-interface"),
        (True, ["--membrane", "yes"], "proteinmpnn:membrane_global_v_48_020"),
        (True, ["--membrane-buried", "A"], "names no residues"),
        (True, ["--membrane-buried", "A:99"], "no residue 99"),
        (True, ["--membrane-buried", "A:3-5", "--membrane-interface", "A:5"], "A:5 is named as buried and as"),
        (False, ["--membrane", "yes"], "proteinmpnn: reads no membrane labels"),
        (False, ["--membrane-interface", "A:3"], "proteinmpnn: reads no membrane labels"),
    ],
)
def test_membrane_labels_that_do_not_fit(run, short, labelled, tmp_path, weights, options, message):
    named = ["--weights", labelled] if weights else []
    done = run("proteinmpnn", "design", short, *named, *options, "-n", 1, "-o", tmp_path / "out")
    assert done.code == 2 and message in done.err, done
    assert not (tmp_path / "out" / "designs.csv").exists()


def test_help_tells_which_weights_to_take(run):
    text = " ".join(run("proteinmpnn", "design", "--help").out.split())
    for name in ("v_48_020", "v_48_002", "soluble_v_48_020", "ca_v_48_020", "membrane_residue_v_48_020"):
        assert name in text
