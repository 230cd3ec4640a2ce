"""The auto-encoder of a run, and the maps of its conformations."""

import json

import jax
import numpy as np
import pytest
from flax import nnx

import jaxprot
from jaxprot.cli.main import main
from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.cryostar import maps, predict
from jaxprot.cryostar.density import Density
from jaxprot.cryostar.results import Heterogeneity
from jaxprot.weights import portable, torch_file


def test_a_run_gives_latents_and_conformations(run):
    predictor = predict.load(run)
    latents = predictor.latents()
    assert latents.shape == (48, 3) and latents.dtype == np.float32
    examples = predictor.task.examples(np.arange(48))
    np.testing.assert_allclose(latents, predictor.encode(examples["images"]), atol=1e-5)
    frames = predictor.decode(latents)
    apply, leaves = predictor.pure()
    np.testing.assert_allclose(frames, jax.jit(apply)(leaves, latents), atol=1e-4)
    np.testing.assert_allclose(predictor.decode(latents[5:6])[0], frames[5], atol=1e-4)
    # Six steps from displacements near 0 move little.
    assert frames.shape == (48, 16, 3) and np.abs(frames - predictor.beads.xyz).max() < 3
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    figures = [record for record in records if "val_rmsd" in record]
    truth = np.load(predictor.task.truth)
    off = np.sqrt(np.square(frames - truth["path_ca"][truth["frame"]]).sum(-1).mean(-1))
    assert len(figures) == 2 and all(0 < record["val_spearman"] <= 1 for record in figures)
    step = portable.load(run / "best.safetensors")[1]["step"]
    best = next(record for record in figures if record["step"] == step)
    assert best["val_rmsd"] == pytest.approx(off[np.linspace(0, 47, 16).astype(int)].mean(), rel=1e-3)


def test_latents_of_a_file_are_those_of_the_particles(run, tmp_path):
    predictor = predict.load(run)
    written = predictor.write_latents(tmp_path / "latents.npy")
    np.testing.assert_array_equal(predictor.read_latents(tmp_path / "latents.npy"), written)
    np.testing.assert_array_equal(predictor.read_latents(tmp_path / "none.npy"), written)
    np.save(tmp_path / "short.npy", written[:-1])
    with pytest.raises(InputError, match=r"short.npy: latents of shape \(47, 3\)"):
        predictor.read_latents(tmp_path / "short.npy")
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    with pytest.raises(InputError, match="bad.npy: not an array"):
        predictor.read_latents(tmp_path / "bad.npy")
    with pytest.raises(InputError, match="latents of shape"):
        predictor.decode(written[:, :2])
    with pytest.raises(InputError, match="12 pixels"):
        predictor.encode(np.zeros((1, 12, 12), np.float32))


def test_what_is_no_run(run, tmp_path):
    with pytest.raises(InputError, match="not the folder of a run"):
        predict.load(tmp_path)
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    with pytest.raises(InputError, match="no best.safetensors"):
        predict.load(tmp_path)
    tensors, header = portable.load(run / "best.safetensors")
    tensors["encoder.mean.bias"] = np.zeros(7, np.float32)
    portable.save(tmp_path / "best.safetensors", tensors, header)
    with pytest.raises(CheckpointError, match="do not fit its header"):
        predict.load(tmp_path)


def test_a_run_is_written_for_the_published_code_and_read_again(run, particles, example, tmp_path, capsys):
    assert main(["cryostar", "export", str(run), "-o", str(tmp_path / "official")]) == 0
    assert "ckpt.pt, z.npy" in capsys.readouterr().out
    own, again = predict.load(run), predict.load(tmp_path / "official" / "ckpt.pt", particles / "reference.pdb")
    latents = np.load(tmp_path / "official" / "z.npy")
    np.testing.assert_array_equal(latents, own.latents())
    np.testing.assert_array_equal(again.decode(latents), own.decode(latents))
    obj = torch_file.read_torch_file(tmp_path / "official" / "ckpt.pt")
    assert list(obj) == ["model", "gmm_sigmas", "gmm_amps"] and set(obj["gmm_sigmas"].tolist()) == {2.0}
    np.testing.assert_array_equal(obj["gmm_amps"], own.beads.electrons)
    with pytest.raises(InputError, match="give the reference"):
        predict.load(tmp_path / "official" / "ckpt.pt")
    theirs = ["cryostar", "analyze", str(tmp_path / "official" / "ckpt.pt"), "--clusters", "3"]
    assert main(theirs) == 2 and "--latents z.npy" in capsys.readouterr().err
    theirs += ["--latents", str(tmp_path / "official" / "z.npy"), "--reference", str(particles / "reference.pdb")]
    theirs += ["--truth", str(particles / "truth.npz")]
    assert main([*theirs, "--particles", str(particles / "particles.star")]) == 0
    found = json.loads((tmp_path / "official" / "analysis" / "truth.json").read_text())
    assert found["particles"] == 48 and len(list((tmp_path / "official" / "analysis" / "clusters").iterdir())) == 3
    assert main(["cryostar", "analyze", str(run), "--latents", "z.npy"]) == 2
    assert "goes with a file of weights" in capsys.readouterr().err
    with pytest.raises(InputError, match="16 beads, and"):
        predict.load(tmp_path / "official" / "ckpt.pt", example("ubiquitin"))


@pytest.mark.golden
def test_the_published_checkpoint_decodes_as_published(goldens, shared):
    data = shared / "data" / "heterogeneity" / "adk" / "1ake_A.pdb"
    if not data.exists():
        pytest.skip("the adenylate kinase benchmark is not at hand")
    predictor = jaxprot.load(goldens("cryostar") / "atom_ckpt.pt", reference=data)
    z = np.load(goldens("cryostar") / "09_decode.npz")
    for component in (1, 2, 3):
        found = predictor.decode(z["z"][z[f"pc{component}_index"]])
        np.testing.assert_allclose(found, z[f"pc{component}_struc"], atol=1e-3)


def test_maps_are_of_the_particles_that_were_decoded(run, tmp_path):
    predictor = predict.load(run)
    latents = predictor.latents()
    found = Heterogeneity.of(latents, predictor.decode, predictor.beads, components=2, points=3, clusters=4)
    choice = maps.chosen(found.landscape)
    frames = np.concatenate([found.centres, *found.paths])
    assert choice.names[0] == "vol_kmeans_000" and choice.names[-1] == "vol_pca_2_002" and len(choice.names) == 10
    np.testing.assert_allclose(predictor.decode(latents[choice.rows]), frames, atol=1e-4)
    own = maps.matched(predictor.decode, latents, frames)
    np.testing.assert_allclose(predictor.decode(latents[own]), frames, atol=1e-3)
    cfg = maps.settings(predictor, latents, tmp_path / "images", hidden=16, epochs=2, batch=8)
    assert cfg.steps == 12 and cfg.task.model.side == 16 and cfg.task.model.latent == 3
    net = Density(cfg.task.model, rngs=nnx.Rngs(0))
    volume = maps.volume_of(net, latents[0], cfg.task.data.pixel, "one")
    assert volume.data.shape == (16, 16, 16) and volume.name == "one" and volume.origin.tolist() == [-24] * 3
    same = maps.map_map(volume, volume)
    np.testing.assert_allclose(same.correlation, 1, atol=1e-5)
    fits = [same, maps.map_model(volume, frames[0], predictor.beads.electrons)]
    columns = maps.table(fits)
    assert {len(values) for values in columns.values()} == {2 * len(same.frequency)}
    assert fits[1].correlation.max() < 0.9
    with pytest.raises(InputError, match="0 epochs"):
        maps.settings(predictor, latents, tmp_path, epochs=0)
    with pytest.raises(InputError, match="weights of the first phase"):
        maps.network(run / "best.safetensors")


def test_load_takes_the_folder_of_a_run(run, tmp_path):
    latents = np.random.default_rng(0).normal(size=(3, 3))
    np.testing.assert_array_equal(jaxprot.load(run).decode(latents), predict.load(run).decode(latents))
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").write_text("{}")
    with pytest.raises(CheckpointError, match="without best"):
        jaxprot.load(tmp_path / "begun")
