"""`--engine ray` as users run it: the numbers of the local engine, restarts, workers that are killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxprot.io.tables import read_table

pytest.importorskip("ray", reason="Ray is not installed: pip install 'jaxprot[ray]'")
pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'jaxprot[ray]'")
KEY = ["chain", "resid", "icode", "index", "wt", "mut", "flag"]


def frame(folder):
    import pandas

    return pandas.read_parquet(folder / "parts")


def same(ours, local: Path) -> None:
    """Rows of one structure against the files of the local engine."""
    scan, spread = read_table(local / "scan.csv"), read_table(local / "uncertainty.csv")
    for name in KEY:
        assert ours[name].tolist() == scan[name].tolist()
    np.testing.assert_allclose(ours["ddg_kcal_mol"], scan["ddg_kcal_mol"], atol=2e-5)
    np.testing.assert_allclose(ours["sd_kcal_mol"], spread["sd_kcal_mol"], atol=2e-5)


@pytest.fixture
def folder(fold, tmp_path):
    """Five truncations of ubiquitin, all of one padded length, and a file that is none."""
    out = tmp_path / "structures"
    out.mkdir()
    for residues in (20, 25, 28, 30, 32):
        shutil.copy(fold(f"u{residues}.pdb", residues), out)
    (out / "broken.pdb").write_text("not a structure\n")
    return out


@pytest.mark.slow
def test_scan_equals_the_local_engine_and_goes_on_where_it_was(run, cluster, folder, tmp_path):
    out, arguments = tmp_path / "out", ["thermompnn", "scan", folder, "--engine", "ray", "--workers", "2"]
    done = run(*arguments, "-o", out)
    assert done.code == 1
    assert done.out == f"{out / 'parts'}: 5 of 6 structures scanned\n"
    assert f"1 of 6 structures failed:\n  {folder / 'broken.pdb'}: no ATOM records" in done.err
    record = json.loads((out / "run.json").read_text())
    assert record["command"] == "thermompnn scan" and len(record["inputs"]) == 6
    assert record["ray"]["workers"] == 2 and record["ray"]["threads"] == 1 and len(record["failed"]) == 1
    assert {path.name for path in out.iterdir()} == {"parts", "run.json"}

    assert run("thermompnn", "scan", folder, "-o", tmp_path / "local").code == 1
    table = frame(out)
    assert set(table["structure"]) == {"u20", "u25", "u28", "u30", "u32"}
    for name, rows in table.groupby("structure"):
        same(rows, tmp_path / "local" / name)

    before = {part.name: part.stat().st_mtime_ns for part in (out / "parts").glob("part-*")}
    (folder / "broken.pdb").unlink()
    done = run(*arguments, "-o", out)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{out / 'parts'}: 5 of 5 structures scanned (5 of them before)\n"
    after = {part.name: part.stat().st_mtime_ns for part in (out / "parts").glob("part-*")}
    assert after.items() <= before.items() and len(after) == 5 and frame(out).equals(table)

    changed = run(*arguments, "-o", out, "--samples", "0")
    assert changed.code == 2 and "samples 4 there, 0 now" in changed.err
    fewer = run("thermompnn", "scan", folder / "u20.pdb", "--engine", "ray", "-o", out)
    assert fewer.code == 2 and "not given now" in fewer.err


@pytest.mark.slow
def test_predict_equals_the_local_engine(run, cluster, folder, tmp_path):
    mutations = tmp_path / "mutations.csv"
    rows = ["u30,A,K6A,0.1", "u20,A,I3V,1.2", "u30.pdb,A,I3A:V5A,2.5", "u32,,K6A,0.3", "u20,A,K6G,0.9"]
    mutations.write_text("\n".join(["structure,chain,mutation,ddg", *rows, ""]))
    arguments = ["thermompnn", "predict", mutations, "--structures", folder]
    assert run(*arguments, "-o", tmp_path / "local").code == 0
    out = tmp_path / "ray"
    done = run(*arguments, "-o", out, "--engine", "ray", "--workers", "2")
    assert (done.code, done.err) == (0, "")
    for name in ("predictions.csv", "uncertainty.csv"):
        ours, local = read_table(out / name), read_table(tmp_path / "local" / name)
        assert list(ours) == list(local)
        for column, values in local.items():
            if values.dtype.kind == "f":
                np.testing.assert_allclose(ours[column], values, atol=2e-5)
            else:
                assert ours[column].tolist() == values.tolist()
    ours, local = (json.loads((place / "metrics.json").read_text()) for place in (out, tmp_path / "local"))
    assert ours["n"] == 5 and ours["rmse"] == pytest.approx(local["rmse"], abs=1e-4)
    assert ours["per_protein"].keys() == local["per_protein"].keys()
    again = run(*arguments, "-o", out, "--engine", "ray")
    assert again.code == 0 and "(4 of them before)" in again.out
    mutations.write_text(mutations.read_text().replace("I3V", "I3L"))
    other = run(*arguments, "-o", out, "--engine", "ray")
    assert other.code == 2 and "table" in other.err
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("structure,mutation\nu20,A3V\n")
    refused = run("thermompnn", "predict", wrong, "--structures", folder, "--engine", "ray", "-o", tmp_path / "none")
    assert refused.code == 2 and "line 2" in refused.err and not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--workers", "2"], "--engine ray"),
        (["--ray-address", "auto"], "--engine ray"),
        (["--engine", "ray", "--workers", "0"], "at least 1"),
        (["--engine", "ray", "--best"], "--engine local"),
    ],
    ids=" ".join,
)
def test_options_that_do_not_fit_are_refused(run, folder, tmp_path, arguments, told):
    done = run("thermompnn", "scan", folder, "-o", tmp_path / "out", *arguments)
    assert done.code == 2 and told in done.err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("device", ["gpu", "tpu"])
def test_a_device_that_ray_does_not_have_is_said(run, cluster, folder, tmp_path, device):
    if cluster.cluster_resources().get(device.upper()):
        pytest.skip("it is there")
    done = run("thermompnn", "scan", folder, "-o", tmp_path / "out", "--engine", "ray", "--device", device)
    assert done.code == 2 and f"--device {device}: Ray finds 0" in done.err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:10001"])
def test_an_address_where_nothing_is(address):
    from jaxprot.core.errors import InputError
    from jaxprot.scale import engine

    with pytest.raises(InputError, match="nothing answers there|client protocol"):
        engine.reachable(address)


def test_ray_that_is_not_installed_is_one_line(run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxprot.scale.engine.importlib.util.find_spec", lambda name: None)
    done = run("thermompnn", "scan", folder, "--engine", "ray", "-o", tmp_path / "out")
    assert done.code == 2
    assert done.err == "jaxprot: error: --engine ray needs ray and pyarrow: pip install 'jaxprot[ray]'\n"


@pytest.mark.parametrize(
    ("nodes", "workers", "shared"),
    [
        ([2], None, (1, 2.0)),
        ([2], 2, (2, 1.0)),
        ([2], 4, (4, 0.5)),
        ([16], 3, (3, 5.0)),
        ([4, 4, 4], 2, (2, 4.0)),
        ([3, 3, 3], 4, (4, 1.0)),
        ([8, 2], 5, (5, 2.0)),
    ],
)
def test_cores_are_shared_so_that_all_workers_find_a_place(nodes, workers, shared):
    from jaxprot.scale import engine

    class Cluster:
        @staticmethod
        def cluster_resources():
            return {"CPU": float(sum(nodes))}

        @staticmethod
        def nodes():
            return [{"Alive": True, "Resources": {"CPU": float(n)}} for n in nodes]

    assert engine._share(Cluster, "cpu", workers) == ("cpu", *shared)


def test_the_command_that_starts_ray_is_not_loaded_with_the_package():
    code = "import sys, jaxprot, jaxprot.cli.thermompnn, jaxprot.scale.engine; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def children(pid: int) -> list[int]:
    """All processes that descend from one."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            below.setdefault(parent, []).append(int(entry.name))
    found = list(below.get(pid, []))
    for one in found:
        found += below.get(one, [])
    return found


def workers_of(pid: int) -> list[int]:
    def title(one: int) -> bytes:
        try:
            return Path(f"/proc/{one}/cmdline").read_bytes()
        except OSError:
            return b""

    return [one for one in children(pid) if title(one).startswith(b"ray::MapWorker")]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
def test_a_worker_killed_midway_loses_nothing_and_doubles_nothing(fold, tmp_path, root):
    folder, out = tmp_path / "structures", tmp_path / "out"
    folder.mkdir()
    lengths = [20 + number % 57 for number in range(200)]
    for number, residues in enumerate(lengths):
        shutil.copy(fold(f"u{residues}.pdb", residues), folder / f"s{number:03}.pdb")
    command = [sys.executable, "-m", "jaxprot.cli.main", "thermompnn", "scan", str(folder)]
    ray = [*command, "--engine", "ray", "--workers", "2", "-o", str(out)]
    begin = time.perf_counter()
    process = subprocess.Popen(ray, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while len(list((out / "parts").glob("part-*"))) < 2:
            assert process.poll() is None, process.communicate()
            assert time.perf_counter() - begin < 300
            time.sleep(0.02)
        victim = workers_of(process.pid)[0]
        os.kill(victim, signal.SIGKILL)
        text, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    seconds = time.perf_counter() - begin
    assert (process.returncode, errors) == (0, "")
    assert text == f"{out / 'parts'}: 200 of 200 structures scanned\n"
    assert json.loads((out / "run.json").read_text())["ray"]["processes"] in (2, 3)  # 2: it had finished no block
    table = frame(out)
    assert len(table) == 20 * sum(lengths)
    assert not table.duplicated(["structure", "chain", "resid", "icode", "mut"]).any()
    counts = table.groupby("structure").size()
    assert {name: count // 20 for name, count in counts.items()} == {f"s{n:03}": r for n, r in enumerate(lengths)}
    local = tmp_path / "local"
    subprocess.run([*command, "-o", str(local)], cwd=root, check=True, capture_output=True, timeout=600)
    for name, rows in table.groupby("structure"):
        same(rows, local / name)
    sys.stderr.write(f"200 structures with a worker killed: {seconds:.1f} s\n")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
def test_a_run_killed_midway_goes_on(fold, tmp_path, root):
    folder, out = tmp_path / "structures", tmp_path / "out"
    folder.mkdir()
    for number in range(40):
        shutil.copy(fold("u40.pdb", 40), folder / f"s{number:03}.pdb")
    command = [sys.executable, "-m", "jaxprot.cli.main", "thermompnn", "scan", str(folder), "-o", str(out)]
    command += ["--engine", "ray", "--workers", "2"]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    begin = time.perf_counter()
    while len(list((out / "parts").glob("part-*"))) < 2:
        assert process.poll() is None and time.perf_counter() - begin < 300
        time.sleep(0.02)
    process.kill()
    process.wait()
    kept = len(list((out / "parts").glob("part-*")))
    # At once, while workers of the first run, which Ray ends some seconds later, still compute.
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "40 of 40 structures scanned (" in done.stdout, done
    before = int(done.stdout.partition("(")[2].split()[0])
    assert 5 * kept <= before < 40
    assert frame(out).groupby("structure").size().to_dict() == {f"s{n:03}": 800 for n in range(40)}
