import numpy as np
import pytest

import jaxprot
from jaxprot.weights import portable


@pytest.mark.golden
@pytest.mark.parametrize("name", ["thermoMPNN_default.pt", "ThermoMPNN-ens1.ckpt", "ThermoMPNN-D-ens1.ckpt"])
def test_published_and_converted_files_load_alike(name, golden_checkpoint, tmp_path):
    from jaxprot.weights import inspect

    path = golden_checkpoint(name)
    inspect.convert(path, tmp_path / "w.safetensors")
    ours, converted = jaxprot.load(str(path)), jaxprot.load(tmp_path / "w.safetensors")
    assert type(ours).__module__ == "jaxprot.thermompnn.predict"
    assert ours.config == converted.config


@pytest.mark.parametrize(
    ("spec", "message"), [("thermompn", "did you mean thermompnn"), ("absent.ckpt", "no such file")], ids=str
)
def test_what_cannot_be_loaded_explains_itself(spec, message):
    with pytest.raises(jaxprot.InputError, match=message):
        jaxprot.load(spec)


def test_weights_of_no_known_system(tmp_path):
    portable.save(tmp_path / "w.safetensors", {"a": np.zeros(3, np.float32)}, {})
    with pytest.raises(jaxprot.CheckpointError, match=r"w\.safetensors: fits no system"):
        jaxprot.load(tmp_path / "w.safetensors")


def test_cite_names_the_papers():
    assert "10.1126/science.add2187" in jaxprot.cite("proteinmpnn")
    assert "megascale" not in jaxprot.cite("proteinmpnn")
    with pytest.raises(jaxprot.InputError, match="no such system"):
        jaxprot.cite("bogus")
