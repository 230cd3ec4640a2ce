"""What workers compute, without an engine around them: the tables that commands write."""

import functools

import numpy as np
import pytest

from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.io.outputs import sha256
from jaxprot.io.tables import read_table
from jaxprot.loading import load
from jaxprot.scale.job import file_items
from jaxprot.thermompnn import lists, scale
from jaxprot.thermompnn.predict import tie
from jaxprot.weights import registry


@pytest.fixture(scope="module")
def weights():
    path, _ = registry.resolve("default", "thermompnn")
    return {"file": str(path), "sha256": sha256(path)}


@pytest.fixture(scope="module")
def predictor():
    return load("thermompnn")


@pytest.fixture(scope="module")
def dimer(example, tmp_path_factory):
    """Twice the first 16 residues of ubiquitin."""
    lines = [line for line in example("ubiquitin").read_text().splitlines() if line.startswith("ATOM")]
    lines = [line for line in lines if int(line[22:26]) <= 16]
    moved = [f"{line[:21]}B{line[22:30]}{float(line[30:38]) + 40:8.3f}{line[38:]}" for line in lines]
    path = tmp_path_factory.mktemp("dimer") / "dimer.pdb"
    path.write_text("\n".join([*lines, "TER", *moved, "TER", "END", ""]))
    return path


@pytest.mark.parametrize(
    ("tied", "cysteine", "samples"),
    [([], True, 2), ([["A", "B"]], False, 0)],
    ids=["plain", "tied, without cysteine and uncertainty"],
)
@pytest.mark.slow
def test_rows_of_a_scan_are_those_of_its_files(predictor, weights, dimer, tmp_path, tied, cysteine, samples):
    job = scale.scan_job(predictor, weights, chains=None, samples=samples, seed=3, tied=tied, cysteine=cysteine)
    items = file_items(["one", "none"], [dimer, tmp_path / "missing.pdb"])
    found = dict(job.make()(items))
    assert isinstance(found[1], InputError) and "missing.pdb" in str(found[1])
    scan = predictor.scan(dimer, samples=samples, seed=3)
    (tie(scan, tied) if tied else scan).write(tmp_path, cysteine=cysteine)
    table = read_table(tmp_path / "scan.csv")
    if samples:
        table["sd_kcal_mol"] = read_table(tmp_path / "uncertainty.csv")["sd_kcal_mol"]
    assert list(found[0]) == list(job.columns) == ["structure", *table]
    assert set(found[0]["structure"]) == {"one"}
    for name, values in table.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(found[0][name], values, atol=2e-5)
        else:
            assert found[0][name].tolist() == values.tolist()


def test_a_chain_that_is_not_there_is_an_error_of_the_structure(predictor, weights, dimer):
    settings = {"samples": 0, "seed": 0, "cysteine": True}
    for other in ({"chains": "Q", "tied": []}, {"chains": None, "tied": [["A", "Q"]]}):
        job = scale.scan_job(predictor, weights, **settings, **other)
        ((_, error),) = job.make()(file_items(["one"], [dimer]))
        assert isinstance(error, InputError) and "Q" in str(error)


def test_tasks_of_files_give_what_structures_in_memory_give(predictor, weights, dimer):
    from jaxprot.io.mutations import parse_mutations

    texts = ["I3A", "B:V5G", "I3A:K6A", "A:M1L"]
    rows = [lists.Row(f"line {n}", "dimer", parse_mutations(text)) for n, text in enumerate(texts)]
    make = functools.partial(lists.Plan, rows, dimer.parent)
    kept, named = make(), make(keep=False)
    local = kept.run(predictor, samples=2)
    assert kept.scans == named.scans == 2
    items = scale.task_items([*named.tasks, named.tasks[0]])
    assert len({item.name for item in items}) == 3
    assert all(item.content.source.is_absolute() for item in items)
    job = scale.predict_job(weights, samples=2, seed=0)
    found = dict(job.make()(items[:2]))
    assert sorted(np.concatenate([found[n]["row"] for n in found]).tolist()) == [0, 1, 2, 3]
    for columns in found.values():
        np.testing.assert_allclose(columns["ddg_kcal_mol"], local.ddg[columns["row"]], atol=2e-5)
        np.testing.assert_allclose(columns["sd_kcal_mol"], local.sd[columns["row"]], atol=2e-5)
        assert columns["flag"].tolist() == [local.flag[row] for row in columns["row"]]


def test_a_worker_refuses_other_weights_than_the_command_meant(weights, tmp_path):
    with pytest.raises(CheckpointError, match="finds other weights"):
        scale.lister(weights["file"], "0" * 64, samples=0, seed=0)
    with pytest.raises(CheckpointError, match="does not find"):
        scale.lister(str(tmp_path / "none.safetensors"), weights["sha256"], samples=0, seed=0)
