"""Random streams, options, workers, optional imports, progress."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import joblib
import numpy as np
import pytest

import causalfair as cf
from causalfair._core.logging import progress
from causalfair._core.optional import import_optional
from causalfair._core.parallel import map_tasks
from causalfair._core.random import child_seed, generator, int_seed, root_seed, uint64_seed
from causalfair.exceptions import MissingDependencyError, ParameterError


def test_a_key_alone_fixes_a_stream():
    root = root_seed(7)
    first = generator(root, 2, 3).random(4)
    generator(root, 9).random(100)
    np.testing.assert_array_equal(generator(root, 2, 3).random(4), first)
    assert not np.array_equal(generator(root, 3, 2).random(4), first)
    assert child_seed(child_seed(root, 2), 3).spawn_key == child_seed(root, 2, 3).spawn_key


def test_neighbouring_seeds_differ():
    seeds = {int_seed(root_seed(s), k) for s in range(200) for k in range(5)}
    assert len(seeds) == 1000
    assert uint64_seed(root_seed(0), 1) != uint64_seed(root_seed(1), 1)


@pytest.mark.parametrize(
    "state", [np.random.default_rng(1), np.random.RandomState(1), np.random.SeedSequence(1)]
)
def test_what_the_user_passed_is_not_advanced(state):
    assert root_seed(state).entropy == root_seed(state).entropy
    assert (
        root_seed(state).generate_state(2).tolist() == root_seed(state).generate_state(2).tolist()
    )


def test_a_used_generator_is_another_seed():
    rng = np.random.default_rng(1)
    before = root_seed(copy.deepcopy(rng)).entropy
    rng.random()
    assert root_seed(rng).entropy != before


def test_fresh_entropy_and_bad_seeds():
    assert root_seed(None).entropy != root_seed(None).entropy
    for bad in (-1, "x", 1.5, True):
        with pytest.raises(ParameterError, match="cannot seed"):
            root_seed(bad)


def scaled(factor: float, x: float) -> float:
    return factor * x


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_results_keep_their_order_on_any_backend(backend):
    with joblib.parallel_config(backend, n_jobs=2):
        assert map_tasks(partial(scaled, 2.0), [3, 1, 2]) == [6, 2, 4]
    assert map_tasks(partial(scaled, 2.0), [3, 1, 2], n_jobs=2) == [6, 2, 4]


def test_errors_of_a_task_reach_the_caller():
    with pytest.raises(ZeroDivisionError):
        map_tasks(partial(divmod, 1), [1, 0])


def test_options():
    with cf.option_context(progress=True, n_jobs=2):
        assert cf.get_option("progress")
        assert cf.get_option("n_jobs") == 2
    assert not cf.get_option("progress")
    with pytest.raises(ParameterError, match="Did you mean 'progress'"):
        cf.set_options(progres=True)
    for bad in ({"progress": 1}, {"inner_threads": 0}, {"n_jobs": 0}, {"n_jobs": True}):
        with pytest.raises(ParameterError, match="must be"):
            cf.set_options(**bad)


def in_a_new_thread(fn):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(fn).result()


def test_options_hold_in_every_thread_and_blocks_only_in_their_own():
    try:
        cf.set_options(n_jobs=3)
        assert in_a_new_thread(lambda: cf.get_option("n_jobs")) == 3
        with cf.option_context(n_jobs=2):
            assert in_a_new_thread(lambda: cf.get_option("n_jobs")) == 3
            cf.set_options(n_jobs=5)  # belongs to the block
            assert cf.get_option("n_jobs") == 5
        assert cf.get_option("n_jobs") == 3
    finally:
        cf.set_options(n_jobs=None)


def test_progress_goes_to_standard_error(capsys):
    assert list(progress(range(3), "work")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    with cf.option_context(progress=True):
        assert list(progress(range(3), "work")) == [0, 1, 2]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "work: 3/3" in captured.err


def test_a_missing_extra_says_what_to_install(tmp_path, monkeypatch):
    with pytest.raises(MissingDependencyError, match=r'pip install "causalfair\[plot\]"'):
        import_optional("no_such_package.part", extra="plot")
    # An installed package that is itself broken is not an absent extra.
    (tmp_path / "broken_package.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency") as caught:
        import_optional("broken_package", extra="plot")
    assert not isinstance(caught.value, MissingDependencyError)
    assert issubclass(MissingDependencyError, ImportError)
