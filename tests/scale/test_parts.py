"""Jobs, parts and workers, without Ray: nothing lost, nothing twice, whatever ends when."""

import functools
import os
import pickle

import numpy as np
import pytest

from jaxprot.core.errors import CheckpointError, InputError, OutputError
from jaxprot.scale import parts as storage
from jaxprot.scale.job import Item, Job, blocks, file_items, message
from jaxprot.scale.parts import Parts, holds_job, write_part
from jaxprot.scale.worker import Worker

COLUMNS = {"name": "str", "value": "float32"}


def rows(item):
    return {"name": np.array([item.name] * 2, dtype=object), "value": np.array([item.size, item.size + 0.5])}


def plain(items):
    for place, item in enumerate(items):
        yield place, InputError(f"{item.name}: broken") if item.content == "bad" else rows(item)


def job(function=plain, **settings):
    return Job("toy", {"samples": 4, **settings}, lambda: function, COLUMNS)


def item(name, content="good", stamp="1", size=1):
    return Item(name, content, stamp, size)


@pytest.fixture
def items():
    return [item(name, size=size) for size, name in enumerate("abcdef")]


def compute(parts, items, together=2):
    """What the engine does, in this process; gives the number of blocks."""
    with parts.locked():
        work = blocks(parts.pending(items), 1, together)
        worker = Worker(parts.job, parts.path, parts.token)
        for block in work:
            told = worker(block)
            if told["error"]:
                raise pickle.loads(told["error"])
            assert told["inputs"] == len(block)
    return len(work)


def names(parts):
    return sorted(parts.read()["name"])


@pytest.mark.parametrize(("count", "workers", "most"), [(0, 2, 32), (1, 2, 32), (7, 2, 32), (1000, 2, 32), (50, 1, 2)])
def test_blocks_hold_every_item_once_the_largest_first(count, workers, most):
    made = blocks([item(str(n), size=n) for n in range(count)], workers, most)
    assert [one.size for block in made for one in block] == list(range(count))[::-1]
    assert all(0 < len(block) <= most for block in made)
    assert len(made) >= min(count, 4 * workers) - 1


def test_parts_are_a_table_for_others(items, tmp_path):
    parts = Parts(tmp_path, job())
    assert compute(parts, items) == 3
    assert parts.finish(items) == {}
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(tmp_path / "parts")
    assert list(table) == ["name", "value"] and str(table["value"].dtype) == "float32"
    assert sorted(table["name"]) == sorted("aabbccddeeff")
    assert holds_job(tmp_path) and not holds_job(tmp_path / "parts")


def test_finished_inputs_are_not_computed_again_and_more_may_be_added(items, tmp_path):
    parts = Parts(tmp_path, job())
    compute(parts, items[:4])
    before = {part: part.stat().st_mtime_ns for part in parts.files()}
    assert [one.name for one in Parts(tmp_path, job()).pending(items)] == ["e", "f"]
    compute(parts, items)
    assert {part: part.stat().st_mtime_ns for part in before} == before
    assert parts.finish(items) == {} and len(names(parts)) == 12
    assert compute(parts, items) == 0


def test_a_changed_input_is_computed_again_with_those_of_its_part(items, tmp_path):
    parts = Parts(tmp_path, job())
    compute(parts, items)
    changed = [*items[:-1], item("f", stamp="2", size=50)]
    assert {one.name for one in parts.pending(changed)} == {"e", "f"}
    compute(parts, changed)
    assert parts.finish(changed) == {} and len(names(parts)) == 12
    assert 50.5 in parts.read()["value"]


def test_results_of_inputs_that_are_not_given_are_refused_and_kept(items, tmp_path):
    parts = Parts(tmp_path, job())
    compute(parts, items)
    with pytest.raises(OutputError, match=r"results of 4 inputs that are not given now \(.*, \.\.\.\)"):
        parts.pending(items[:2])
    assert len(names(parts)) == 12


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (job(samples=0), "samples 4 there, 0 now"),
        (job(chains="A"), 'chains null there, "A" now'),
        (Job("toys", {"samples": 4}, lambda: plain, COLUMNS), "of `toy`, not `toys`"),
    ],
    ids=["changed setting", "new setting", "other command"],
)
def test_parts_of_another_job_are_refused_unless_overwritten(items, tmp_path, other, told):
    compute(Parts(tmp_path, job()), items)
    with pytest.raises(OutputError, match=told):
        Parts(tmp_path, other)
    replaced = Parts(tmp_path, other, overwrite=True)
    assert replaced.pending(items) == items
    compute(replaced, items)
    # The same command again, with --overwrite still on it, goes on instead of beginning anew.
    assert Parts(tmp_path, other, overwrite=True).pending(items) == []


def test_parts_without_a_readable_description_are_refused(items, tmp_path):
    compute(Parts(tmp_path, job()), items)
    (tmp_path / "parts" / "_job.json").write_text("{")
    with pytest.raises(OutputError, match="description cannot be read"):
        Parts(tmp_path, job())
    (tmp_path / "parts" / "_job.json").unlink()
    with pytest.raises(OutputError, match="description cannot be read"):
        Parts(tmp_path, job())


def test_failures_are_noted_and_tried_again(items, tmp_path):
    broken = [*items[:5], item("f", "bad")]
    parts = Parts(tmp_path, job())
    compute(parts, broken)
    assert parts.finish(broken) == {"f": "f: broken"}
    assert [one.name for one in parts.pending(broken)] == ["f"]
    compute(parts, broken)
    compute(parts, broken)
    assert parts.finish(broken) == {"f": "f: broken"} and len(parts.files()) == 4
    mended = [*items[:5], item("f", stamp="2")]
    compute(parts, mended)
    assert parts.finish(mended) == {} and len(names(parts)) == 12


def test_a_part_of_failures_alone_has_all_columns(tmp_path):
    parts = Parts(tmp_path, job())
    compute(parts, [item("a", "bad")])
    assert parts.read()["value"].dtype == np.float32 and len(parts.read()["name"]) == 0
    pandas = pytest.importorskip("pandas")
    assert list(pandas.read_parquet(tmp_path / "parts")) == ["name", "value"]


def test_leftovers_and_damaged_parts_are_replaced(items, tmp_path):
    parts = Parts(tmp_path, job())
    compute(parts, items)
    damaged = parts.files()[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    (parts.path / ".part-1-0-part-x.parquet").write_text("half of one")
    (parts.path / "_tries-part-x.parquet").write_text("x")
    assert len(parts.pending(items)) == 2
    assert {path.name for path in parts.path.iterdir()} == {*(p.name for p in parts.files()), "_job.json", "_lock"}
    compute(parts, items)
    assert parts.finish(items) == {} and len(names(parts)) == 12


def test_the_name_of_a_part_is_that_of_its_inputs(items, tmp_path):
    assert storage.part_name(items) == storage.part_name(items[::-1])
    changed = [*items[:-1], item("f", stamp="2")]
    assert storage.part_name(items) != storage.part_name(changed)
    one, other = (write_part(tmp_path, block, dict(plain(block)), COLUMNS) for block in (items, items))
    assert one == other and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ValueError, match="every item"):
        write_part(tmp_path, items, {0: rows(items[0])}, COLUMNS)


def test_what_is_missing_or_twice_at_the_end_is_an_error(items, tmp_path):
    parts = Parts(tmp_path, job())
    compute(parts, items)
    part = parts.files()[0]
    copy = part.with_name("part-copy.parquet")
    copy.write_bytes(part.read_bytes())
    with pytest.raises(OutputError, match="there twice"):
        parts.finish(items)
    copy.unlink()
    part.unlink()
    with pytest.raises(OutputError, match="not there"):
        parts.finish(items)


def test_a_second_run_is_kept_out(tmp_path):
    parts = Parts(tmp_path, job())
    with parts.locked():
        with pytest.raises(OutputError, match="another run is writing here"):
            Parts(tmp_path, job())
    Parts(tmp_path, job())


def test_a_run_that_fails_before_the_first_part_leaves_nothing(tmp_path):
    parts = Parts(tmp_path / "out", job())
    with pytest.raises(InputError), parts.locked(), parts.tidied():
        raise InputError("no such cluster")
    assert not (tmp_path / "out").exists()


def test_an_error_of_a_batch_is_not_that_of_its_inputs(items, tmp_path):
    def greedy(block):
        for place, one in enumerate(block):
            if len(block) > 1 and place == 1:
                raise MemoryError("too much at once")
            if one.name == "e":
                raise ValueError("odd")
            yield place, rows(one)

    parts = Parts(tmp_path, job(greedy))
    compute(parts, items, together=6)
    assert parts.finish(items) == {"e": "internal: ValueError: odd"}
    assert names(parts) == sorted("aabbccddff")


def test_an_input_that_ends_its_worker_is_found_and_left_out(items, tmp_path):
    class Killed(BaseException):
        pass

    seen = []

    def deadly(block):
        for place, one in enumerate(block):
            seen.append(one.name)
            if one.name == "c":
                raise Killed
            yield place, rows(one)

    parts = Parts(tmp_path, job(deadly))
    for _ in range(3):  # the engine gives a block to a new worker, again and again
        with pytest.raises(Killed):
            Worker(parts.job, parts.path, parts.token)(items)
    assert Worker(parts.job, parts.path, parts.token)(items)["error"] == b""
    assert seen.count("c") == 3
    assert list(parts.finish(items)) == ["c"] and "worker process ended" in parts.finish(items)["c"]
    assert names(parts) == sorted("aabbddeeff")
    assert not list(parts.path.glob("_tries*"))


def test_a_worker_that_ended_after_writing_has_no_successor(items, tmp_path):
    parts = Parts(tmp_path, job())
    Worker(parts.job, parts.path, parts.token)(items)
    told = Worker(job(lambda block: pytest.fail("computed again")), parts.path, parts.token)(items)
    assert (told["inputs"], told["error"]) == (6, b"")


def test_a_worker_of_an_earlier_run_writes_nothing(items, tmp_path):
    parts = Parts(tmp_path, job())
    orphan = Worker(parts.job, parts.path, parts.token)
    assert orphan(items[:2])["error"] == b""
    later = Parts(tmp_path, job())
    with later.locked():
        told = orphan(items[2:4])
        assert told["inputs"] == 0 and "another run has taken this folder over" in str(pickle.loads(told["error"]))
        with pytest.raises(OutputError):  # one that is refused leaves the token alone
            Parts(tmp_path, job())
        assert Worker(later.job, later.path, later.token)(items[2:4])["error"] == b""
    compute(later, items)
    assert later.finish(items) == {} and len(names(later)) == 12


def test_a_part_that_an_earlier_run_writes_late_is_no_double(items, tmp_path):
    """Its worker looked at the token before the second run had the folder, and renamed the part after."""
    parts = Parts(tmp_path, job())
    compute(parts, items[:1])
    with parts.locked():
        work = blocks(parts.pending(items), 1, 2)
        late = [items[1], items[2], items[5]]
        write_part(parts.path, late, {place: rows(one) for place, one in enumerate(late)}, COLUMNS)
        for block in work:
            assert not Worker(parts.job, parts.path, parts.token)(block)["error"]
        with pytest.raises(OutputError, match="there twice"):
            parts.finish(items)
        parts.remove_strays(work)
        assert parts.finish(items) == {} and len(names(parts)) == 12


@pytest.mark.parametrize(
    ("error", "kind"), [(CheckpointError("no weights"), CheckpointError), (KeyError("x"), RuntimeError)]
)
def test_an_error_of_the_model_ends_the_run(items, tmp_path, error, kind):
    def make():
        raise error

    parts = Parts(tmp_path, Job("toy", {}, make, COLUMNS))
    with pytest.raises(kind, match="no weights|KeyError"):
        compute(parts, items)


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="the superuser may write anywhere")
def test_a_folder_without_permission_is_named(items, tmp_path):
    parts = Parts(tmp_path, job())
    parts.path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written"):
        compute(parts, items)


def test_a_folder_that_went_away_ends_the_run(items, tmp_path):
    parts = Parts(tmp_path, job())
    work = Worker(parts.job, tmp_path / "file" / "parts", parts.token)
    (tmp_path / "file").write_text("")
    assert isinstance(pickle.loads(work(items)["error"]), OutputError)


def test_the_stamp_of_a_file_changes_with_it(tmp_path):
    path = tmp_path / "a.pdb"
    (missing,) = file_items(["a"], [path])
    path.write_text("one")
    (first,) = file_items(["a"], [path])
    path.write_text("three")
    (second,) = file_items(["a"], [path])
    assert len({missing.fingerprint, first.fingerprint, second.fingerprint}) == 3
    assert (missing.size, first.size, second.size) == (0, 3, 5)


def test_messages_tell_our_errors_from_others():
    assert message(InputError("a.pdb: no atoms")) == "a.pdb: no atoms"
    assert message(KeyError("x\ny")) == r"internal: KeyError: 'x\ny'"


def test_workers_set_their_environment_before_jax_is_imported(monkeypatch, tmp_path):
    monkeypatch.setattr("jaxprot.scale.worker.sys.modules", {})
    monkeypatch.setattr("jaxprot.scale.worker.os.environ", environment := {"CACHE": "of the start"})
    make = functools.partial(Worker, job(), tmp_path, "", {"NPROC": "1"}, {"CACHE": "/x"})
    make("another machine")
    assert environment == {"NPROC": "1"}
    import platform

    make(platform.node())
    assert environment == {"NPROC": "1", "CACHE": "/x"}
