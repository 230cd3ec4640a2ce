"""Weights of both networks: published files read and written, portable files."""

import zipfile

import numpy as np
import pytest
from flax import nnx

from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.cryostar import weights
from jaxprot.cryostar.config import DensityConfig, VAEConfig
from jaxprot.weights import inspect, torch_file
from jaxprot.weights.convert import rename

CONFORMATION = VAEConfig(side=6, beads=5, latent=2, encoder=(8, 8, 4), decoder=(4, 7))
DENSITY = DensityConfig(side=6, latent=3, hidden=8, mask=0.7)
BEADS = {"sigma": np.full(5, 2.0, np.float32), "amplitude": np.arange(5, dtype=np.float32)}


def tensors(cfg):
    rng = np.random.default_rng(0)
    out = {name: rng.normal(size=shape).astype(np.float32) for name, shape in weights.shapes(cfg).items()}
    if "encoding.directions" in out:  # their spread tells the encoding
        scale = cfg.side / (4 if cfg.encoding == "gau1" else 8)
        out["encoding.directions"] *= scale / out["encoding.directions"].std()
    return out


SIZES = {
    "beads": CONFORMATION,
    "modes": VAEConfig(side=6, beads=5, latent=2, encoder=(8,), decoder=(4, 4), modes=3, space="fourier"),
    "density": DENSITY,
    "whole planes, first encoding": DensityConfig(side=7, latent=0, hidden=8, mask=1, encoding="gau1", layers=2),
    "real and imaginary": DensityConfig(side=6, hidden=8, mask=0.9, net="cryodrgn-fourier"),
}


@pytest.mark.parametrize("name", SIZES)
def test_published_files_come_back(name, tmp_path):
    cfg, path = SIZES[name], tmp_path / "ckpt.pt"
    values, extras = tensors(cfg), BEADS if isinstance(SIZES[name], VAEConfig) else {}
    weights.export_official(path, cfg, values, extras)
    found, read, more = weights.read(path)
    assert found == cfg
    assert read.keys() == values.keys() and more.keys() == extras.keys()
    for key, value in {**values, **extras}.items():
        np.testing.assert_array_equal({**read, **more}[key], value)
    net = weights.assemble(found, read)
    np.testing.assert_array_equal(weights.tensors_of(net)["encoder.mean.bias" if extras else "net.output.bias"].size,
                                  cfg.latent if extras else cfg.outputs)  # fmt: skip


def test_portable_files_come_back(tmp_path):
    for cfg, extras in ((CONFORMATION, BEADS), (DENSITY, {}), (DensityConfig(side=6, net="cryoai", hidden=4), {})):
        values = tensors(cfg)
        weights.save(tmp_path / "a.safetensors", cfg, values, extras)
        found, read, more = weights.read(tmp_path / "a.safetensors")
        assert found == cfg and more.keys() == extras.keys()
        assert read.keys() == values.keys() and all((read[key] == values[key]).all() for key in values)


def test_directions_are_fixed_and_kept():
    net = weights.assemble(DENSITY, tensors(DENSITY))
    assert "encoding" not in nnx.to_pure_dict(nnx.state(net, nnx.Param))
    np.testing.assert_array_equal(
        weights.tensors_of(net)["encoding.directions"], tensors(DENSITY)["encoding.directions"]
    )


def test_a_density_without_directions_needs_its_encoding_told(tmp_path):
    cfg = DensityConfig(side=6, latent=1, hidden=8, mask=0.9, encoding="geo2")
    weights.export_official(tmp_path / "a.pt", cfg, tensors(cfg))
    with pytest.raises(CheckpointError, match="geo1, geo2"):
        weights.read(tmp_path / "a.pt")
    assert weights.read(tmp_path / "a.pt", "geo2")[0] == cfg


def test_what_does_not_fit_is_told(tmp_path):
    path = tmp_path / "a.pt"
    weights.export_official(path, DENSITY, tensors(DENSITY))
    obj = dict(torch_file.read_torch_file(path))
    torch_file.write_torch_file({**obj, "plane_coords": obj["plane_coords"] + 0.1}, path)
    with pytest.raises(CheckpointError, match="plane_coords is not what a side of 6"):
        weights.read(path)
    torch_file.write_torch_file({key: value for key, value in obj.items() if key != "fvol.net.net.0.bias"}, path)
    with pytest.raises(CheckpointError, match=r"1 tensor missing\n.*fvol.net.net.0.bias"):
        weights.read(path)
    torch_file.write_torch_file({"weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(CheckpointError, match="unexpected"):
        weights.read(path)
    weights.portable.save(tmp_path / "b.safetensors", tensors(DENSITY), {"system": "rmsfnet"})
    with pytest.raises(CheckpointError, match="weights of rmsfnet"):
        weights.read(tmp_path / "b.safetensors")
    with pytest.raises(InputError, match="no such file"):
        weights.read(tmp_path / "none.pt")
    with pytest.raises(InputError, match="sigma and amplitude"):
        weights.export_official(path, CONFORMATION, tensors(CONFORMATION))
    with pytest.raises(InputError, match="no published layout"):
        weights.export_official(path, DensityConfig(side=6, net="cryoai"), {})
    with pytest.raises(CheckpointError, match="net.output.bias is missing"):
        weights.assemble(DENSITY, {k: v for k, v in tensors(DENSITY).items() if k != "net.output.bias"})


@pytest.mark.golden
@pytest.mark.parametrize("name", ["atom_ckpt", "density_ckpt"])
def test_published_files_are_written_byte_for_byte(name, goldens, tmp_path):
    """Every record but the random number of the file, and so the pickle as well."""
    original, path = goldens("cryostar") / f"{name}.pt", tmp_path / f"{name}.pt"
    cfg, values, extras = weights.read(original)
    weights.export_official(path, cfg, values, extras)
    with zipfile.ZipFile(original) as theirs, zipfile.ZipFile(path) as ours:
        assert theirs.namelist() == ours.namelist()
        different = [name for name in theirs.namelist() if theirs.read(name) != ours.read(name)]
    assert different == [f"{name}/.data/serialization_id"]


@pytest.mark.golden
def test_each_published_table_matches_its_file_alone(goldens):
    home = goldens("cryostar")
    for name, rules, ignored, count in (
        ("atom_ckpt", weights.OFFICIAL, (), 26),
        ("density_ckpt", weights.OFFICIAL_DENSITY, weights.IGNORED_OFFICIAL_DENSITY, 11),
    ):
        assert len(rename(weights.inspect.read(home / f"{name}.pt")[1], rules, ignored)) == count
    with pytest.raises(CheckpointError):
        rename(weights.inspect.read(home / "density_ckpt.pt")[1], weights.OFFICIAL)


@pytest.mark.golden
@pytest.mark.parametrize("name", ["atom_ckpt.pt", "density_ckpt.pt"])
def test_published_files_are_recognised_and_converted(name, goldens, tmp_path):
    path, target = goldens("cryostar") / name, tmp_path / "w.safetensors"
    assert {match.system for match in inspect.examine(path).matches} == {"cryostar"}
    assert inspect.convert(path, target)["system"] == "cryostar"
    (cfg, values, extras), (found, read, more) = weights.read(path), weights.read(target)
    assert (found, read.keys(), more.keys()) == (cfg, values.keys(), extras.keys())
    for key, value in {**values, **extras}.items():
        np.testing.assert_array_equal({**read, **more}[key], value)


@pytest.mark.parametrize("name", ["beads", "density"])
def test_pytorch_opens_what_is_exported(name, tmp_path):
    torch = pytest.importorskip("torch")
    cfg, values = SIZES[name], tensors(SIZES[name])
    weights.export_official(tmp_path / "ckpt.pt", cfg, values, BEADS if name == "beads" else {})
    found = torch.load(tmp_path / "ckpt.pt", weights_only=True)
    theirs, ours = (
        ("fvol.net.net.0", "net.input.linear") if name == "density" else ("decoder.out_layer", "decoder.output")
    )
    state = found["model"] if name == "beads" else found
    np.testing.assert_array_equal(state[f"{theirs}.weight"].numpy(), values[f"{ours}.kernel"].T)
    np.testing.assert_array_equal(state[f"{theirs}.bias"].numpy(), values[f"{ours}.bias"])
