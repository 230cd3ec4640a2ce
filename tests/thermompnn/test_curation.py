"""The filters, the homologues and the splits of the stability data, on small hand-made tables."""

import csv
import gzip

import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.thermompnn import curation
from jaxprot.thermompnn.curation import FIREPROT_COLUMNS, MEGASCALE_COLUMNS, Homologue

UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"
SH3 = "MDETGKELVLALYDYQEKSPREVTMKKGDILTLLNSTNKDWWKVEVNDRQGFVPAAYVKKLD"


def mega(name, kind, ddg, sequence="MKV"):
    return {"WT_name": name, "mut_type": kind, "ddG_ML": ddg, "aa_seq": sequence}


def fire(ddg, ph, code="1ABC", position="5", wild="A", mutant="G"):
    row = {"pdb_id": code, "chain": "A", "position": position, "wild_type": wild, "mutation": mutant}
    return {**row, "ddG": ddg, "pH": ph}


def test_megascale_keeps_reliable_single_substitutions_and_turns_the_sign():
    rows = curation.megascale_rows(
        [
            mega("1ABC.pdb", "wt", "0"),
            mega("1ABC.pdb", "M1A", "-1.5"),
            mega("1ABC.pdb", "K2R", "0.25"),
            mega("1ABC.pdb", "K2E", "-"),
            mega("1ABC.pdb", "insA2", "0.1"),
            mega("1ABC.pdb", "delK2", "0.1"),
            mega("1ABC.pdb", "M1A:K2R", "0.1"),
            mega("1ABC.pdb", "K2K", "0.0"),
        ]
    )
    assert rows.protein.tolist() == ["1ABC", "1ABC"]
    assert list(zip(rows.resid, rows.wt, rows.mut, rows.ddg, strict=True)) == [
        ("1", "M", "A", 1.5),
        ("2", "K", "R", -0.25),
    ]
    assert rows.sequence == {"1ABC": "MKV"}
    assert rows.dropped == {
        "wild type": 1,
        "no ddG_ML": 1,
        "insertion or deletion": 2,
        "multiple": 1,
        "not a substitution": 1,
    }


def test_megascale_names_follow_the_structure_files():
    assert curation.megascale_name("HHH|rd1|0142.pdb") == "HHH:rd1:0142"


def test_megascale_with_wrong_wild_type_letters_is_refused_by_name():
    with pytest.raises(InputError, match=r"1ABC \(1 rows\)"):
        curation.megascale_rows([mega("1ABC.pdb", "wt", "0"), mega("1ABC.pdb", "V1A", "1")])


def test_an_empty_table_gives_no_rows():
    rows = curation.megascale_rows([])
    assert len(rows.ddg) == 0 and rows.ddg.dtype == float


def test_fireprot_takes_the_best_ph_and_averages_equal_ones():
    rows = curation.fireprot_rows(
        [fire("1.0", "7.0"), fire("3.0", "7.4"), fire("5.0", "7.4"), fire("9.0", ""), fire("2", "", position="6")]
    )
    assert list(zip(rows.resid, rows.ddg, strict=True)) == [("5", 4.0), ("6", 2.0)]
    assert rows.dropped["other pH or duplicate"] == 3


def test_fireprot_averages_what_is_equally_far_from_the_best_ph():
    assert curation.fireprot_rows([fire("1", "7.3"), fire("2", "7.5")]).ddg.tolist() == [1.5]


def test_fireprot_keeps_monomers_with_structure_and_value():
    table = [
        fire("1", "7"),
        fire("", "7"),
        fire("1", "7", code=""),
        fire("1", "7", code="9XYZ"),
        fire("1", "7", mutant="X"),
    ]
    rows = curation.fireprot_rows(table, monomers=["1abc"])
    assert rows.protein.tolist() == ["1ABCA"]
    assert rows.dropped == {
        "no ddG": 1,
        "no structure": 1,
        "not a monomer": 1,
        "not a substitution": 1,
        "other pH or duplicate": 0,
    }


@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_raw_tables_are_streamed_with_the_columns_that_are_needed(tmp_path, suffix):
    path = tmp_path / f"raw.{suffix}"
    with (gzip.open if suffix.endswith("gz") else open)(path, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["dna_seq", *MEGASCALE_COLUMNS])
        writer.writerow(["ACGT", "MKV", "M1A", "1ABC.pdb", "0.5"])
    assert list(curation.read_raw(path, MEGASCALE_COLUMNS)) == [mega("1ABC.pdb", "M1A", "0.5")]


def test_a_raw_table_without_a_column_says_which(tmp_path):
    path = tmp_path / "raw.csv"
    path.write_text("pdb_id,chain,position\n1ABC,A,5\n")
    with pytest.raises(InputError, match="wild_type, mutation, ddG, pH"):
        list(curation.read_raw(path, FIREPROT_COLUMNS))
    with pytest.raises(InputError, match="no such file"):
        list(curation.read_raw(tmp_path / "absent.csv", FIREPROT_COLUMNS))
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"pdb_id,chain\n" * 100)[:-9])
    with pytest.raises(InputError, match="cut.csv.gz"):
        list(curation.read_raw(tmp_path / "cut.csv.gz", ("pdb_id",)))


def test_homologues_are_found_and_strangers_are_not():
    near = SH3[:30].replace("K", "R") + SH3[30:]
    found = curation.find_homologues({"query": SH3}, {"same": SH3, "near": near, "twin": near, "other": UBIQUITIN})
    assert {pair.target for pair in found} == {"same", "near", "twin"}
    same = next(pair for pair in found if pair.target == "same")
    assert (same.identity, same.aligned, same.coverage) == (1.0, len(SH3), 1.0)
    assert same.evalue < 1e-20


def test_coverage_counts_towards_the_shorter_sequence():
    half = SH3[:20] + "C" * 60
    assert curation.find_homologues({"q": SH3}, {"t": half}) == []
    assert len(curation.find_homologues({"q": SH3}, {"t": half}, coverage=0.2)) == 1


def test_a_sequence_is_no_homologue_of_itself_but_of_its_copy():
    found = curation.find_homologues({"a": SH3, "b": SH3}, {"a": SH3, "b": SH3})
    assert {(pair.query, pair.target) for pair in found} == {("a", "b"), ("b", "a")}


def pair(a, b):
    return Homologue(a, b, 0.5, 30, 0.9, 1e-6)


def test_clusters_connect_what_pairs_connect():
    assert curation.cluster(list("abcde"), [pair("a", "b"), pair("c", "b"), pair("x", "a")]) == [
        ["a", "b", "c"],
        ["d"],
        ["e"],
    ]


@pytest.mark.parametrize("seed", range(5))
def test_a_split_keeps_clusters_together_and_meets_the_shares(seed):
    rng = np.random.default_rng(seed)
    names = [f"p{i}" for i in range(298)]
    pairs = [pair(*rng.choice(names[:150], 2, replace=False)) for _ in range(90)]
    parts = curation.split(curation.cluster(names, pairs), {"train": 239, "val": 31, "test": 28}, seed)
    assert set(parts) == set(names)
    assert curation.crossing(parts, pairs) == []
    assert abs(sum(v == "val" for v in parts.values()) - 31) <= 3
    assert abs(sum(v == "test" for v in parts.values()) - 28) <= 3


def test_pairs_across_a_split_are_counted_once():
    parts = {"a": "train", "b": "test", "c": "train"}
    assert len(curation.crossing(parts, [pair("a", "b"), pair("b", "a"), pair("a", "c"), pair("a", "z")])) == 1


def given(protein, rows):
    keys = ("resid", "wt", "mut", "ddG")
    columns = {key: np.array(value) for key, value in zip(keys, zip(*rows, strict=True), strict=True)}
    return {**columns, "protein": np.array([protein] * len(rows), dtype=object)}


def test_comparison_finds_the_shift_of_numbering():
    raw = [mega("1ABC.pdb", f"{a}{i}W", str(-i / 10)) for i, a in enumerate("MKVLE", 1)]
    rebuilt = curation.megascale_rows(raw)
    table = given("1abc_A_3-7", [(str(i + 40), a, "W", i / 10 + 0.5 * (i == 5)) for i, a in enumerate("MKVLE", 1)])
    out = curation.compare(rebuilt, table)
    assert (out["proteins_in_both"], out["rows_in_both"], out["rows_equal"]) == (1, 5, 4)
    assert out["largest_difference"] == pytest.approx(0.5)


def test_comparison_of_strangers_finds_nothing():
    rebuilt = curation.megascale_rows([mega("1ABC.pdb", "M1W", "0")])
    out = curation.compare(rebuilt, given("2XYZA", [("1", "M", "W", 0.0)]))
    assert (out["proteins_in_both"], out["rows_in_both"]) == (0, 0)


@pytest.mark.golden
def test_a_table_agrees_with_itself(shared):
    from jaxprot.io.tables import read_table

    table = read_table(shared / "data" / "stability" / "myoglobin.csv")
    rows = [
        fire(str(d), "7.4", "1BZ6", str(r), w, m)
        for r, w, m, d in zip(*(table[k] for k in ("resid", "wt", "mut", "ddG")), strict=True)
    ]
    out = curation.compare(curation.fireprot_rows(rows), table)
    # Some mutations are there several times; the filter averages them.
    assert out["rows_in_both"] == len(table["ddG"])
    assert out["rows_equal"] >= 95 and out["pearson"] > 0.95


@pytest.mark.golden
def test_training_proteins_beyond_the_split_have_no_homologue_in_validation_and_test(shared, root):
    import runpy

    from jaxprot.io.tables import read_table

    home = shared / "data" / "stability"
    extra = runpy.run_path(str(root / "experiments" / "thermompnn" / "default.py"))["EXTRA"]
    columns = read_table(home / "megascale_natural.csv.gz")
    part = dict(zip(columns["protein"].astype(str), columns["thermompnn_split"].astype(str), strict=True))
    assert all(part[name] == "" for name in extra)
    held = curation.evaluation_sequences(home / "pdb_megascale", [n for n, s in part.items() if s in ("val", "test")])
    assert len(held) == 19
    queries = curation.evaluation_sequences(home / "pdb_megascale", extra)
    # The E value of the rule counts the residues of all evaluation sets, of which these are a small part.
    assert curation.find_homologues(queries, held, searched=66758) == []
