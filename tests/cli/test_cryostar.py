"""`jaxprot cryostar ...` as a user runs it, on ten beads in images of 24 pixels with a small network."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxprot.cli import main
from jaxprot.io.particles import read_particles
from jaxprot.io.structures import read_structure
from jaxprot.io.tables import read_table
from jaxprot.weights import portable

STACK = {"particles.star", "particles.mrcs", "truth.npz", "ensemble.pdb", "reference.pdb", "run.json"}
RUN = {"config.yaml", "metrics.jsonl", "ckpt", "best.safetensors", "images", "reference.pdb", "latents.npy", "run.json"}
SMALL = ["--batch", 8, "--low-pass", 5]
for setting in ("task.encoder=16,8", "task.decoder=8,16", "task.latent=3", "task.held=16", "task.settle=0", "chunk=4"):
    SMALL += ["--set", setting]
SLOW = ["--steps", 40]  # as slow as its checkpoints
for setting in ("save_every=1", "evaluate_every=7", "log_every=3", "chunk=1"):
    SLOW += ["--set", setting]
PARTICLES, SIDE = 48, 24


def names(folder):
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def call(*arguments):
    return main.main([str(argument) for argument in arguments])


def simulated(model, folder, *more):
    sizes = ["-n", PARTICLES, "--side", SIDE, "--pixel-size", 2, "--frames", 6, "--snr", 1]
    assert call("cryostar", "simulate", model, *sizes, *more, "-o", folder) == 0
    return folder


@pytest.fixture(scope="module")
def stack(tmp_path_factory, example):
    """A folder with particles, their truth and a reference."""
    return simulated(example("chignolin"), tmp_path_factory.mktemp("stack") / "sim")


@pytest.fixture(scope="module")
def inputs(stack):
    return [stack / "particles.star", "--reference", stack / "reference.pdb", *SMALL]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, inputs):
    """A run of eight steps."""
    run = tmp_path_factory.mktemp("fitted") / "run"
    assert call("cryostar", "fit", *inputs, "--steps", 8, "-o", run) == 0
    return run


def error_of(done):
    """The one line of a command that ended with wrong input."""
    assert done.code == 2, done.err
    *before, last = done.err.splitlines()
    assert last.startswith("jaxprot: error: ") and "internal" not in last
    assert not [line for line in before if "rror" in line], done.err
    return last


def records(run):
    """What the metrics tell, but for times."""
    changing = ("seconds_per_step", "data_wait", "programs")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in changing} for line in lines]


def test_simulated_particles(stack):
    assert names(stack) == STACK
    particles, truth = read_particles(stack / "particles.star"), np.load(stack / "truth.npz")
    assert len(particles) == PARTICLES and particles.side.tolist() == [SIDE] * PARTICLES
    assert truth["path_ca"].shape == (6, 10, 3) and set(truth["frame"]) <= set(range(6))
    reference = read_structure(stack / "reference.pdb")
    assert reference.n_residues == 12 and reference.n_atoms > 150  # with what caps the ten amino acids
    alpha = reference.xyz[reference.atom_name == "CA"]
    nearest = np.sqrt(((truth["path_ca"] - alpha) ** 2).sum(-1).mean(-1)).min()
    assert nearest < 1.5  # placed on the ensemble, whose mean is the origin
    record = json.loads((stack / "run.json").read_text())
    assert record["command"] == "cryostar simulate" and record["arguments"]["side"] == SIDE


def test_simulation_of_an_ensemble_and_between_two_models(run, stack, tmp_path):
    """The models of a file are its conformations, and --to draws the line from the first to the last of them."""
    sizes = ["-n", 6, "--side", SIDE, "--seed", 3]
    assert run("cryostar", "simulate", stack / "ensemble.pdb", *sizes, "-o", tmp_path / "models").code == 0
    truth = np.load(tmp_path / "models" / "truth.npz")["path_ca"]
    np.testing.assert_allclose(truth, np.load(stack / "truth.npz")["path_ca"], atol=2e-3)
    last = (stack / "ensemble.pdb").read_text().split("MODEL")[-1].split("\n", 1)[1].replace("ENDMDL\n", "")
    (tmp_path / "last.pdb").write_text(last)
    arguments = [stack / "ensemble.pdb", "--to", tmp_path / "last.pdb", "--frames", 3, *sizes]
    assert run("cryostar", "simulate", *arguments, "-o", tmp_path / "line").code == 0
    line = np.load(tmp_path / "line" / "truth.npz")["path_ca"]
    assert line.shape == (3, 10, 3)
    np.testing.assert_allclose(line[1], (line[0] + line[2]) / 2, atol=1e-4)
    same = (tmp_path / "line" / "particles.mrcs").read_bytes()
    assert run("cryostar", "simulate", *arguments, "-o", tmp_path / "line").code == 2
    assert run("cryostar", "simulate", *arguments, "-o", tmp_path / "line", "--overwrite").code == 0
    assert (tmp_path / "line" / "particles.mrcs").read_bytes() == same


def test_a_model_that_a_pdb_file_cannot_hold(run, stack, example, tmp_path):
    """Its reference is an mmCIF file, and takes the place of an earlier one; particles and all else are the same."""
    import dataclasses

    from jaxprot.io.structures import write_structure

    first = read_structure(example("chignolin")).first_model()
    model = dataclasses.replace(first, chain_id=np.array(["AAA"] * len(first.chain_id), "U8"))
    write_structure(model, tmp_path / "long.cif")
    sizes = ["-n", 4, "--side", SIDE, "--pixel-size", 2, "--frames", 2, "-o", tmp_path / "sim"]
    assert run("cryostar", "simulate", example("chignolin"), *sizes).code == 0
    done = run("cryostar", "simulate", tmp_path / "long.cif", *sizes, "--overwrite")
    assert done.code == 0 and "reference.cif" in done.out
    expected = {name.replace("pdb", "cif") for name in STACK}
    assert names(tmp_path / "sim") == expected
    assert set(read_structure(tmp_path / "sim" / "reference.cif").chain_id) == {"AAA"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a model"),
        (["absent.pdb"], "absent.pdb: no such file"),
        (["MODEL", "--to", "a.pdb", "--trajectory", "b.dcd"], "not both"),
        (["MODEL", "--snr", "0"], "snr"),
        (["MODEL", "-n", "0"], "0 particles"),
        (["MODEL", "--side", "8", "--pixel-size", "1"], "leave images of 8 pixels"),
        (["MODEL", "--modes", "40", "--frames", "80"], "40 normal modes of 10 beads"),
    ],
    ids=["no model", "no such model", "two paths", "only noise", "no particles", "images too small", "too many modes"],
)
def test_what_cannot_be_simulated(run, example, tmp_path, arguments, message):
    given = [example("chignolin") if argument == "MODEL" else argument for argument in arguments]
    assert message in error_of(run("cryostar", "simulate", *given, "-o", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_run_and_its_files(run, fitted, inputs, tmp_path):
    assert names(fitted) == RUN
    latents = np.load(fitted / "latents.npy")
    assert latents.shape == (PARTICLES, 3) and np.isfinite(latents).all() and np.ptp(latents, axis=0).all()
    assert read_structure(fitted / "reference.pdb").atom_name.tolist() == ["CA"] * 10
    assert records(fitted)[-1]["step"] == 8 and "val_correlation" in records(fitted)[-1]
    assert portable.load(fitted / "best.safetensors")[1]["config"]["beads"] == 10
    note = json.loads((fitted / "run.json").read_text())
    assert note["command"] == "cryostar fit" and len(note["data"]) == 2  # particles and reference
    arguments = [*inputs, "--steps", 8, "-o", fitted]
    assert "already holds" in error_of(run("cryostar", "fit", *arguments))


@pytest.mark.slow
def test_a_run_goes_on_for_more_steps(run, inputs, tmp_path):
    home = tmp_path / "run"
    done = run("cryostar", "fit", *inputs, "--steps", 4, "-o", home)
    assert done.code == 0 and "correlate with projections" in done.err
    np.save(home / "latents.npy", np.zeros((PARTICLES, 3), np.float32))  # stands for those of fewer steps
    assert run("cryostar", "fit", "--resume", "--steps", 8, "-o", home).code == 0
    assert [start["step"] for start in json.loads((home / "run.json").read_text())["starts"]] == [0, 4]
    after = np.load(home / "latents.npy")
    assert after.shape == (PARTICLES, 3) and after.any()
    assert "has done 8 steps already" in error_of(run("cryostar", "fit", "--resume", "--steps", 4, "-o", home))
    np.testing.assert_array_equal(np.load(home / "latents.npy"), after)
    # Another training in its place, but not where the input is wrong.
    arguments = [*inputs, "--steps", 4, "--seed", 5, "-o", home, "--overwrite"]
    error_of(run("cryostar", "fit", *arguments, "--invert"))
    assert names(home) == RUN
    assert run("cryostar", "fit", *arguments).code == 0 and names(home) == RUN
    assert [line["step"] for line in records(home)][-1] == 4
    note = json.loads((home / "run.json").read_text())
    assert note["seed"] == 5 and [start["step"] for start in note["starts"]] == [0]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--low-pass", 7], "task.low_pass 5.0 (asked for: 7.0)"),
        (["--invert"], "task.invert False (asked for: True)"),
        (["--batch", 16], "task.size 8 (asked for: 16)"),
        (["--set", "optim.lr=2e-4"], "optim.lr 0.001 (asked for: 0.0002)"),
        (["other.star"], "other.star)"),
        (["--seed", 3], "seed 0 (asked for: 3)"),
        (["--experiment", "EXPERIMENT"], "optim.lr 0.001 (asked for: 0.0001)"),
    ],
    ids=["low-pass", "invert", "batch", "set", "particles", "seed", "experiment"],
)
def test_a_run_goes_on_with_its_own_settings_alone(run, fitted, root, given, told):
    files = ("config.yaml", "run.json", "metrics.jsonl")
    before = [(fitted / name).read_bytes() for name in files]
    words = [root / "experiments" / "cryostar" / "10059.py" if word == "EXPERIMENT" else word for word in given]
    message = error_of(run("cryostar", "fit", *words, "--steps", 12, "--resume", "-o", fitted))
    assert told in message and "leave these options out" in message
    assert [(fitted / name).read_bytes() for name in files] == before


def test_what_a_run_was_begun_with_may_be_given_again_and_is_noted(fitted, inputs, stack):
    from jaxprot.cli.cryostar import FitOptions, _held, _told

    def held(**given):
        options = FitOptions(output=fitted, resume=True, **given)
        cfg = _held(options, fitted, 0)
        return cfg, _told(options, cfg)

    settings = tuple(text for text in inputs if isinstance(text, str) and "=" in text)
    # A path through another folder names the same file.
    cfg, told = held(particles=stack / ".." / stack.name / "particles.star", batch=8, set=(*settings, "steps=20"))
    assert cfg.steps == 20 and cfg.task.low_pass == 5
    assert told.particles == stack / "particles.star" and told.reference == stack / "reference.pdb"
    assert told.low_pass == 5 and told.steps == 20 and told.given_seed == 0 and not told.invert
    assert held()[0].steps == 8


def test_the_script_for_empiar_goes_on_with_the_same_options_alone(root, tmp_path):
    """What is found wrong before the training may be mended; afterwards a run keeps what it was begun with."""
    import runpy

    from jaxprot.core.errors import OutputError

    keep = runpy.run_path(str(root / "scripts" / "cryostar_empiar.py"))["keep"]
    home = tmp_path / "out"
    wrong, right = ({"invert": invert, "particles": tmp_path / "a.star"} for invert in (True, False))
    assert keep(home, wrong) is False
    (home / "run" / "images").mkdir(parents=True)
    assert keep(home, wrong) is False  # the prepared images can be used
    assert keep(home, right) is True
    (home / "run" / "config.yaml").write_text("")
    assert keep(home, right) is False
    with pytest.raises(OutputError, match=r"made with other settings \(invert\)"):
        keep(home, wrong)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, inputs):
    """A run that nothing interrupts."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert call("cryostar", "fit", *inputs, *SLOW, "-o", run) == 0
    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(run, inputs, whole, tmp_path, root, name):
    import jax

    home = tmp_path / "run"
    arguments = ["cryostar", "fit", *inputs, *SLOW, "-o", home]
    compiled = {
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxprot.cli.main", *map(str, arguments)],
        env={**os.environ, **compiled, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 600
        while len([item for item in (home / "ckpt").glob("*") if item.name.isdigit()]) < 2:
            assert process.poll() is None, process.communicate()[1][-2000:]
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(getattr(signal, name))
        out, said = process.communicate(timeout=300)
    finally:
        process.kill()
    if name == "SIGTERM":
        assert process.returncode == 0 and "stopped by SIGTERM and saved after step" in out, said[-2000:]
    else:
        assert process.returncode == -signal.SIGKILL
    assert not (home / "latents.npy").exists()
    done = run("cryostar", "fit", "--resume", "-o", home)
    assert done.code == 0 and "trained to step 40" in done.out
    assert records(home) == records(whole)
    np.testing.assert_array_equal(np.load(home / "latents.npy"), np.load(whole / "latents.npy"))
    found, expected = (portable.load(one / "best.safetensors")[0] for one in (home, whole))
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


def star(source, target, *drop, **optics):
    """The particle file without some columns, and with others in its table of optics."""
    import starfile

    tables = starfile.read(source, always_dict=True)
    tables["particles"] = tables["particles"].drop(columns=list(drop))
    for name, value in optics.items():
        tables["optics"][name] = value
    particles = tables["particles"]
    particles["rlnImageName"] = [name.replace("@", f"@{Path(source).parent}/") for name in particles["rlnImageName"]]
    starfile.write(tables, target)
    return target


ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
DEFOCUS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")


def wrong(kind, stack, folder):
    """(arguments of `fit` with one thing wrong, words of the error)."""
    good, reference = stack / "particles.star", ["--reference", stack / "reference.pdb"]
    path = folder / "wrong.star"
    if kind == "no poses":
        return [star(good, path, *ANGLES), *reference], [str(path), "no poses", "refine"]
    if kind == "no CTF":
        return [star(good, path, *DEFOCUS), *reference], ["no CTF parameters", "estimate them"]
    if kind == "CTF applied":
        return [star(good, path, rlnCtfDataAreCtfPremultiplied=1), *reference], ["multiplied by their CTF", "without"]
    if kind == "missing stack":
        path.write_text(good.read_text())
        return [path, *reference], ["1 of 1 stacks missing", "particles.mrcs (particle row 1)"]
    if kind == "truncated stack":
        path.write_text(good.read_text())
        content = (stack / "particles.mrcs").read_bytes()
        (folder / "particles.mrcs").write_bytes(content[: 1024 + 20 * 2 * SIDE**2 + 10])
        return [path, *reference], ["particles.mrcs: truncated", "the first missing particle is row 21 of"]
    if kind == "reference without beads":
        (folder / "water.pdb").write_text(
            "HETATM    1  O   HOH A   1       1.000   2.000   3.000  1.00  0.00           O\nEND\n"
        )
        return [good, "--reference", folder / "water.pdb"], ["water", "nothing to make beads of"]
    if kind == "reference outside":
        lines = [
            f"{line[:30]}{float(line[30:38]) + 80:8.3f}{line[38:]}" if line.startswith("ATOM") else line
            for line in (stack / "reference.pdb").read_text().splitlines()
        ]
        (folder / "far.pdb").write_text("\n".join(lines))
        return [good, "--reference", folder / "far.pdb"], ["100% of the beads are outside", "0, 0, 0"]
    more, words = {
        "side too large": (["--side", 64], ["24 pixels cannot be made 64 pixels wide"]),
        "inverted": (["--invert"], ["correlate negatively", "leave --invert out"]),
        "batch larger than the stack": (["--batch", 64], ["48 particles are fewer than the 64 of a step"]),
        "batch of one": (["--batch", 1], ["--batch 1: give at least 2"]),
        "no steps": (["--steps", 0], ["steps 0: give a number, at least 1"]),
        "unknown key": (["--set", "task.latents=4"], ["did you mean task.latent?"]),
        "no such experiment": (["--experiment", folder / "none.py"], ["none.py: no such experiment file"]),
        "another system": (
            ["--experiment", Path(__file__).parents[2] / "experiments" / "rmsfnet" / "paper.py"],
            ["paper.py: no cryoSTAR experiment"],
        ),
        "no such seed": (["--seed", -1], ["--seed -1: give a number from 0"]),
    }[kind]
    return [good, *reference, *more], words


@pytest.mark.parametrize(
    "kind",
    [
        "no poses", "no CTF", "CTF applied", "missing stack", "truncated stack", "reference without beads",
        "reference outside", "side too large", "batch larger than the stack", "batch of one", "no steps", "unknown key",
        "no such experiment", "another system", "no such seed",
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_before_anything_is_written(run, stack, tmp_path, kind):
    arguments, words = wrong(kind, stack, tmp_path)
    told = error_of(run("cryostar", "fit", *SMALL, *arguments, "-o", tmp_path / "out"))
    for word in words:
        assert word in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "given", [[], ["STAR"], ["--reference", "a.pdb"]], ids=["none", "no reference", "no particles"]
)
def test_particles_and_reference_have_to_be_given(run, stack, tmp_path, given):
    arguments = [stack / "particles.star" if argument == "STAR" else argument for argument in given]
    told = error_of(run("cryostar", "fit", *arguments, "-o", tmp_path / "out"))
    assert "give the particles (a .star or .cs file) and --reference" in told


def test_inverted_particles_are_told_before_the_training(run, stack, tmp_path):
    """And the next attempt in the same folder prepares its images anew."""
    arguments, words = wrong("inverted", stack, tmp_path)
    home = tmp_path / "out"
    told = error_of(run("cryostar", "fit", *SMALL, *arguments, "-o", home))
    assert all(word in told for word in words) and names(home) == {"images"}
    arguments = [argument for argument in arguments if argument != "--invert"]
    done = run("cryostar", "fit", *SMALL, *arguments, "--steps", 4, "-o", home, "--overwrite")
    assert done.code == 0 and names(home) == RUN


def test_options_and_experiments(run, stack, root, tmp_path, monkeypatch):
    """What is given replaces what an experiment says, and nothing else does."""
    from jaxprot.cli.cryostar import FitOptions, _config

    def made(**given):
        given = {"particles": stack / "particles.star", "reference": stack / "reference.pdb", **given}
        return _config(FitOptions(**given), tmp_path / "run", 0)

    assert (
        made().task.low_pass == 10 and made(low_pass=0.0).task.low_pass is None and made(low_pass=7).task.low_pass == 7
    )
    path = root / "experiments" / "cryostar" / "1ake.py"
    monkeypatch.setenv("JAXPROT_1AKE", str(stack))
    cfg = made(experiment=path, batch=8, set=("optim.lr=2e-4", "task.ratio=0.7"))
    assert cfg.task.low_pass == 4 and cfg.task.size == 8 and cfg.steps == 24_000
    assert cfg.optim.lr == 2e-4 and cfg.task.ratio == 0.7 and cfg.task.truth == str(stack / "truth.npz")
    assert cfg.task.cache == str(tmp_path / "run" / "images")
    assert made(experiment=path, low_pass=0.0, steps=3).task.low_pass is None
    published = root / "experiments" / "cryostar" / "10059.py"
    assert made(experiment=published).seed == 1 and made(experiment=published, given_seed=0).seed == 0
    assert made().seed == 0


def test_analysis(run, fitted, stack, tmp_path):
    arguments = [fitted, "--clusters", 3, "--points", 4, "--components", 2]
    done = run("cryostar", "analyze", *arguments)
    assert done.code == 0 and not done.err
    home = fitted / "analysis"
    expected = {"latents.npy", "labels.npy", "pca-1.pdb", "pca-2.pdb", "kmeans.pdb", "mobility.pdb", "mobility.csv"}
    expected |= {"clusters.csv", "clusters", "landscape.png", "view.pml", "view.cxc", "analysis.json", "run.json"}
    assert names(home) == expected
    for name, count in {"pca-1.pdb": 4, "kmeans.pdb": 3, "mobility.pdb": 1}.items():
        models = read_structure(home / name, models="all")
        assert len(np.unique(models.model)) == count and models.n_atoms == 10 * count
    mobility = read_table(home / "mobility.csv")
    residues = np.load(stack / "truth.npz")["resid"]
    assert mobility["resid"].tolist() == residues.tolist() and (mobility["mobility_angstrom"] > 0).all()
    whole, rows = read_particles(stack / "particles.star"), []
    labels = np.load(home / "labels.npy")
    for number in range(3):
        part = read_particles(home / "clusters" / f"cluster_{number:02d}.star", dataset_dir=stack)
        np.testing.assert_allclose(part.angles, whole.angles[labels == number])
        assert part.tables[part.particles].columns.keys() == whole.tables[whole.particles].columns.keys()
        rows += part.image_names.tolist()
    assert sorted(rows) == sorted(whole.image_names.tolist())
    assert (home / "landscape.png").read_bytes().startswith(b"\x89PNG")
    assert "already holds" in error_of(run("cryostar", "analyze", *arguments))
    assert run("cryostar", "analyze", fitted, "--clusters", 2, "--format", "parquet", "--overwrite").code == 0
    assert names(home / "clusters") == {"cluster_00.star", "cluster_01.star"} and (home / "mobility.parquet").exists()


def test_analysis_of_what_is_no_run(run, fitted, stack, tmp_path):
    assert "give the folder of a run" in error_of(run("cryostar", "analyze"))
    assert "not the folder of a run" in error_of(run("cryostar", "analyze", stack, "-o", tmp_path / "out"))
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "config.yaml").write_text((fitted / "config.yaml").read_text())
    told = error_of(run("cryostar", "analyze", tmp_path / "young"))
    assert "no best.safetensors yet" in told and "--resume" in told
    (tmp_path / "young" / "best.safetensors").write_bytes((fitted / "best.safetensors").read_bytes())
    np.save(tmp_path / "young" / "latents.npy", np.zeros((5, 3), np.float32))
    told = error_of(run("cryostar", "analyze", tmp_path / "young", "-o", tmp_path / "out"))
    assert "latents.npy: latents of shape (5, 3), and the run needs (48, 3)" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_half_sets(run, inputs, tmp_path):
    home = tmp_path / "halves"
    assert run("cryostar", "fit", *inputs, "--half-sets", "--steps", 4, "-o", home).code == 0
    assert names(home) == {"half1", "half2"}
    for half in ("half1", "half2"):
        assert names(home / half) == RUN and len(np.load(home / half / "latents.npy")) == PARTICLES // 2
    done = run("cryostar", "analyze", home, "--clusters", 2, "--points", 3, "--components", 1)
    assert done.code == 0 and names(home / "analysis") == {"half1", "half2", "agreement.json"}
    told = json.loads((home / "analysis" / "agreement.json").read_text())
    assert 0 < told["half1 in half2"]["mean"] < 3 and -1 <= told["mobility_correlation"] <= 1
    rows = [
        name
        for half in ("half1", "half2")
        for path in (home / "analysis" / half / "clusters").glob("*.star")
        for name in read_particles(path, check_images=False).image_names.tolist()
    ]
    assert len(rows) == len(set(rows)) == PARTICLES


def test_a_pair_of_ubiquitins_opens_without_breaking():
    from jaxprot.cli.demo import ubiquitin_pair
    from jaxprot.cryostar.simulate import morph

    frames = morph(ubiquitin_pair(0), ubiquitin_pair(45), 5).frames
    bonds = np.linalg.norm(np.diff(frames, axis=1), axis=-1)[:, np.arange(143) != 71]  # not from chain to chain
    assert bonds.min() > 3.6 and bonds.max() < 4
    apart = np.linalg.norm(frames[:, :, None] - frames[:, None], axis=-1)[:, *np.triu_indices(144, 1)]
    assert apart.min() > 3.6
    assert np.sqrt(((frames[0] - frames[-1]) ** 2).sum(-1).mean()) > 5


@pytest.mark.slow
def test_demo(run, tmp_path, monkeypatch):
    """With few images and steps; and again, which replaces the first one."""
    from jaxprot.cli import demo

    less = {"400": "24", "300": "8", "evaluate_every=100": "evaluate_every=4"}
    runs = [
        (command, [less.get(word, word) for word in words] + [*map(str, SMALL)] * (command == "cryostar fit"), folder)
        for command, words, folder in demo._RUNS["cryostar"]
    ]
    monkeypatch.setitem(demo._RUNS, "cryostar", runs)
    for _ in range(2):
        done = run("demo", "cryostar", "-o", tmp_path / "demo")
        assert done.code == 0, done.err
    assert names(tmp_path / "demo") == {"inputs", "particles", "run"}
    assert names(tmp_path / "demo" / "run") == RUN | {"analysis"}
    rows = [line.split() for line in done.out.splitlines() if line.split()[0] in ("4", "8")]
    found = [record for record in records(tmp_path / "demo" / "run") if "val_rmsd" in record]
    assert [[int(row[0]), float(row[2])] for row in rows] == [[r["step"], round(r["val_rmsd"], 2)] for r in found]


@pytest.mark.slow
def test_the_demo_finds_the_conformations(run, tmp_path):
    assert run("demo", "cryostar", "-o", tmp_path / "demo").code == 0
    last = [record for record in records(tmp_path / "demo" / "run") if "val_rmsd" in record][-1]
    assert last["val_rmsd"] < 1 and last["val_spearman"] > 0.85
