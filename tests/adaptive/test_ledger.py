"""Durability: crashes, races, tampering, continuation."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import sqlite3
import stat
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

from causalfair.adaptive import ReusableHoldout, _chain, _ledger
from causalfair.adaptive._noise import matches
from causalfair.exceptions import (
    BudgetExhaustedError,
    CausalFairWarning,
    HoldoutChangedError,
    LedgerConflictError,
    LedgerError,
    ParameterError,
)

STEPS = (
    "after begin",
    "before insert",
    "after insert",
    "after state",
    "before commit",
    "after commit",
)


@pytest.fixture
def small():
    rng = np.random.default_rng(0)
    return rng.normal(size=(500, 2)), rng.integers(0, 2, 500)


def make(path, small, **kwargs):
    settings = {"mechanism": "gaussian", "max_queries": 40, "force": True} | kwargs
    return ReusableHoldout.create(path, *small, **settings)


def positive(X, y):
    return X[:, 0] > 0


# ---------------------------------------------------------------------------------------- crashes
def ask_until_killed(path, step, turn, count, sender):
    """Child: ask questions, report each answer once it is out, die at a named step."""
    holdout = ReusableHoldout.open(path)
    seen = 0

    def die(name):
        nonlocal seen
        seen += name == step
        if name == step and seen == turn:
            os.kill(os.getpid(), signal.SIGKILL)

    _ledger.checkpoint = die
    used = holdout._parts.session.ledger.state().k_used
    for j in range(used, used + count):
        answer = holdout.ask(positive, query_id=f"q{j}")
        sender.send((answer.query_id, answer.value))
    sender.send(None)


def run_child(path, step=None, turn=0, delay=None):
    """Answers that a killed child had shown, and whether it died.

    It dies at a named step, or `delay` seconds after its first answer.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    count = 10 if delay is None else 10_000
    child = context.Process(target=ask_until_killed, args=(path, step, turn, count, sender))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork in a threaded test process
        child.start()
    sender.close()
    shown = []
    try:
        while (item := receiver.recv()) is not None:
            shown.append(item)
            if delay is not None and len(shown) == 1:
                threading.Timer(delay, os.kill, (child.pid, signal.SIGKILL)).start()
    except EOFError:
        pass
    child.join()
    receiver.close()
    return shown, child.exitcode == -signal.SIGKILL


def check_kills(tmp_path, small, deaths):
    """After each death the ledger must hold exactly what it charged for; counts the deaths."""
    path = tmp_path / "study.ledger"
    make(path, small, max_queries=100_000)
    died = 0
    for death in deaths:
        before = ReusableHoldout.open(path)._parts.session.ledger.state().k_used
        shown, killed = run_child(path, **death)
        died += killed
        holdout = ReusableHoldout.open(path)
        ledger = holdout._parts.session.ledger
        used = ledger.state().k_used
        assert used - before >= len(shown)  # no refund
        assert used - before - len(shown) <= 1  # at most the one that was committed, not yet shown
        assert used == len(ledger.rows())  # nothing charged without an answer
        for name, value in shown:
            assert holdout.ask(positive, query_id=name).value == value  # no revealed answer lost
        assert ledger.state().k_used == used  # and asking again was free
    assert holdout.audit(), holdout.audit()
    return died


def at_steps(kills):
    """Deaths at every step in turn."""
    return [{"step": STEPS[i % len(STEPS)], "turn": 1 + i % 4} for i in range(kills)]


def at_random(kills):
    """Deaths at moments that no step names."""
    delays = np.random.default_rng(0).uniform(0, 0.05, kills)
    return [{"delay": float(delay)} for delay in delays]


def test_kill_at_every_step(tmp_path, small):
    assert check_kills(tmp_path, small, at_steps(12)) == 12


def test_kill_at_any_moment(tmp_path, small):
    assert check_kills(tmp_path, small, at_random(4)) == 4


@pytest.mark.slow
def test_two_hundred_and_forty_kills_at_named_steps(tmp_path, small):
    assert check_kills(tmp_path, small, at_steps(240)) == 240


@pytest.mark.slow
def test_one_hundred_kills_at_random_moments(tmp_path, small):
    assert check_kills(tmp_path, small, at_random(100)) == 100


@pytest.mark.parametrize("step", STEPS[:-1])
def test_an_exception_at_any_step_spends_nothing(tmp_path, small, step, monkeypatch):
    holdout = make(tmp_path / "a.ledger", small)

    def fail(name):
        if name == step:
            raise OSError("disk full")

    monkeypatch.setattr(_ledger, "checkpoint", fail)
    with pytest.raises(OSError, match="disk full"):
        holdout.ask(positive, query_id="q")
    monkeypatch.undo()
    assert holdout.remaining == 40
    first = holdout.ask(positive, query_id="q")
    assert first.query_index == 1
    assert holdout.audit()


# ------------------------------------------------------------------------------------------ races
def race(path, name, sender):
    holdout = ReusableHoldout.open(path)
    count = 0
    try:
        while True:
            holdout.ask(positive, query_id=f"{name}-{count}")
            count += 1
    except BudgetExhaustedError:
        sender.send(count)


def run_race(path, n_processes):
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(n_processes)]
    children = [
        context.Process(target=race, args=(path, j, pipes[j][1])) for j in range(n_processes)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for child in children:
            child.start()
    counts = [receiver.recv() for receiver, _ in pipes]
    for child in children:
        child.join()
    return counts


def test_eight_processes_get_exactly_the_budget(tmp_path, small):
    path = tmp_path / "race.ledger"
    make(path, small, max_queries=100)
    counts = run_race(path, 8)
    assert sum(counts) == 100
    holdout = ReusableHoldout.open(path)
    assert holdout.remaining == 0
    assert holdout.audit()


@pytest.mark.slow
def test_eight_processes_get_exactly_a_large_budget(tmp_path, small):
    path = tmp_path / "race.ledger"
    make(path, small, max_queries=1_500)
    assert sum(run_race(path, 8)) == 1_500


def test_threads_share_a_budget(tmp_path, small):
    holdout = make(tmp_path / "a.ledger", small, max_queries=30)
    counts = []

    def work(name):
        got = 0
        try:
            while True:
                holdout.ask(positive, query_id=f"{name}-{got}")
                got += 1
        except BudgetExhaustedError:
            counts.append(got)

    threads = [threading.Thread(target=work, args=(j,)) for j in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 30


def child_asks(holdout, sender):
    sender.send(holdout.ask(positive, query_id="child").query_index)


def test_a_holdout_survives_a_fork(tmp_path, small):
    holdout = make(tmp_path / "a.ledger", small)
    holdout.ask(positive, query_id="parent")
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=child_asks, args=(holdout, sender))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    assert receiver.recv() == 2
    child.join()
    assert holdout.ask(positive, query_id="after").query_index == 3
    assert holdout.audit()


def test_a_locked_ledger_says_so(tmp_path, small, monkeypatch):
    monkeypatch.setattr(_ledger, "BUSY_SECONDS", 0.05)
    path = tmp_path / "a.ledger"
    holdout = make(path, small)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="stayed locked"):
        holdout.ask(positive)
    other.execute("ROLLBACK")
    other.close()


# ------------------------------------------------------------------------------------- idempotence
def test_the_same_query_id_is_free(tmp_path, small):
    holdout = make(tmp_path / "a.ledger", small)
    first = holdout.ask(positive, query_id="u")
    assert holdout.ask(positive, query_id="u") == first
    assert holdout.remaining == 39
    with pytest.raises(ParameterError, match="was used before for another question"):
        holdout.ask(positive, lo=-1, query_id="u")


def test_a_partly_known_batch_pays_for_the_rest_only(tmp_path, small):
    holdout = make(tmp_path / "a.ledger", small)
    first = holdout.ask_many([positive, positive], query_ids=["a", "b"])
    second = holdout.ask_many([positive, positive, positive], query_ids=["b", "c", "a"])
    assert (second[0], second[2]) == (first[1], first[0])
    assert holdout.remaining == 37
    again = holdout.ask_many([positive] * 3, query_id="batch")
    assert [a.query_id for a in again] == ["batch/0", "batch/1", "batch/2"]
    assert list(holdout.ask_many([positive] * 3, query_id="batch")) == list(again)
    assert holdout.remaining == 34


def test_a_batch_that_does_not_fit_spends_nothing(tmp_path, small):
    holdout = make(tmp_path / "a.ledger", small)
    with pytest.raises(BudgetExhaustedError, match=r"0 are used and 41 more.*Nothing was spent"):
        holdout.ask_many([positive] * 41)
    assert holdout.remaining == 40


# --------------------------------------------------------------------------------------- tampering
def edit(path, statement):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()


def test_an_edited_row_is_detected(tmp_path, small):
    path = tmp_path / "a.ledger"
    holdout = make(path, small)
    for j in range(5):
        holdout.ask(positive, query_id=f"q{j}")
    assert str(holdout.audit()).startswith("Ledger intact: 5 answers")
    edit(path, "UPDATE log SET answer=replace(answer, '\"status\"', '\"Status\"') WHERE i=3")
    audit = holdout.audit()
    assert not audit
    assert "row 3 was edited" in str(audit)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM log WHERE i>=4", "log has 3 rows and the state counts 5"),
        ("DELETE FROM log WHERE i=2", "row 3 was edited, or a row before it is missing"),
        (
            "UPDATE state SET content=replace(content, '\"k_used\":5', '\"k_used\":1')",
            "state does not follow",
        ),
        ("UPDATE state SET head_hash='00'", "head hash does not end the chain"),
        ("UPDATE meta SET value='0.5' WHERE name='beta'", "row 1 was edited"),
        ("UPDATE log SET t=t+1 WHERE i=5", "row 5 was edited"),
    ],
)
def test_truncation_and_other_edits_are_detected(tmp_path, small, statement, message):
    path = tmp_path / "a.ledger"
    holdout = make(path, small)
    for j in range(5):
        holdout.ask(positive, query_id=f"q{j}")
    edit(path, statement)
    assert message in str(holdout.audit())


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_file_that_was_cut_short_is_detected(tmp_path, small, kept):
    path = tmp_path / "a.ledger"
    holdout = make(path, small, max_queries=1_000)
    holdout.ask_many([positive] * 200, query_ids=[f"q{j}" for j in range(200)])
    holdout._parts.session.ledger.close()  # moves the write-ahead log into the file
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) // 4096 * 4096])
    with pytest.raises(LedgerError, match="is damaged"):
        ReusableHoldout.open(path)
    assert "the file is damaged" in str(holdout.audit())
    with pytest.raises(LedgerError, match="cannot be read or written"):
        holdout.ask(positive)


def rechained(path, change):
    """Edit every row through `change` and recompute all hashes, as an expert forger would."""
    connection = sqlite3.connect(path, isolation_level=None)
    meta = {k: json.loads(v) for k, v in connection.execute("SELECT name, value FROM meta")}
    head = _chain.genesis(meta)
    for values in connection.execute(f"SELECT {', '.join(_chain.ROW)} FROM log").fetchall():
        row = change(dict(zip(_chain.ROW, values, strict=True)))
        previous, head = head, _chain.chain(head, row)
        connection.execute(
            "UPDATE log SET answer=?, cost=?, prev_hash=?, hash=? WHERE i=?",
            (row["answer"], row["cost"], previous, head, row["i"]),
        )
        state = _chain.canonical(json.loads(row["cost"]))
    connection.execute("UPDATE state SET head_hash=?, content=?", (head, state))
    connection.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r, None),
        (lambda r: r | {"cost": r["cost"].replace('"k_used":3', '"k_used":1')}, "lowers the"),
        (lambda r: r | {"answer": r["answer"].replace('"first":3', '"first":2')}, "not charged"),
        (lambda r: r | {"cost": r["cost"].replace('"k_used":5', '"k_used":41')}, "41 queries were"),
    ],
)
def test_budget_arithmetic_is_checked_even_under_fresh_hashes(tmp_path, small, change, message):
    path = tmp_path / "a.ledger"
    holdout = make(path, small)
    for j in range(5):
        holdout.ask(positive, query_id=f"q{j}")
    rechained(path, change)
    assert bool(holdout.audit()) == (message is None)
    assert (message or "intact") in str(holdout.audit())


def test_closing_is_part_of_the_chain(tmp_path, small):
    path = tmp_path / "a.ledger"
    holdout = make(path, small)
    first = holdout.ask(positive, query_id="a")
    holdout.reveal_key()
    assert str(holdout.audit()).startswith("Ledger intact: 1 answers")
    assert list(holdout.to_frame()["query_id"]) == ["a"]
    assert holdout.ask(positive, query_id="a") == first  # what was answered stays readable
    edit(path, "UPDATE state SET closed=''")
    assert "disagree on whether the ledger is closed" in str(holdout.audit())


def test_another_key_is_detected(tmp_path, small):
    path = tmp_path / "a.ledger"
    holdout = make(path, small)
    edit(path, "UPDATE secret SET value=zeroblob(32) WHERE name='key'")
    assert "the key is not the one committed to" in str(holdout.audit())


def test_a_consistent_old_copy_is_shown_by_the_noted_head(tmp_path, small):
    path = tmp_path / "a.ledger"
    holdout = make(path, small)
    holdout.ask(positive, query_id="a")
    holdout._parts.session.ledger.close()
    old = path.read_bytes()
    holdout.ask(positive, query_id="b")
    head = holdout.audit().head_hash
    assert holdout.audit(expected_head=head)
    holdout._parts.session.ledger.close()
    path.write_bytes(old)
    restored = ReusableHoldout.open(path)
    assert restored.audit()
    assert "truncated or replaced by an old copy" in str(restored.audit(expected_head=head))


def test_changed_rows_are_detected(tmp_path, small):
    path = tmp_path / "a.ledger"
    make(path, small)
    X, y = small
    with pytest.raises(HoldoutChangedError, match="SHA-256 differs"):
        ReusableHoldout.open(path, X + 1e-12, y)
    with pytest.raises(HoldoutChangedError, match="SHA-256 differs"):
        ReusableHoldout.open(path, X[::-1], y[::-1])
    assert ReusableHoldout.open(path, X, y).remaining == 40
    sealed = path.with_name("a.ledger.holdout.npz")
    sealed.write_bytes(sealed.read_bytes()[:-200])
    with pytest.raises(HoldoutChangedError, match="cannot be read"):
        ReusableHoldout.open(path)


def test_what_is_not_a_ledger(tmp_path, small):
    with pytest.raises(LedgerError, match="There is no ledger at"):
        ReusableHoldout.open(tmp_path / "none.ledger")
    junk = tmp_path / "junk.ledger"
    junk.write_bytes(b"hello" * 1_000)
    with pytest.raises(LedgerError, match="is not a ledger of causalfair"):
        ReusableHoldout.open(junk)
    holdout = make(tmp_path / "a.ledger", small, seal=False)
    with pytest.raises(LedgerError, match="pass X and y"):
        ReusableHoldout.open(tmp_path / "a.ledger")
    with pytest.raises(TypeError, match="cannot be sent to another process"):
        pickle.dumps(holdout)


# ------------------------------------------------------------------- one ledger for one holdout
def test_a_second_ledger_for_the_same_rows_is_refused(tmp_path, small, monkeypatch):
    make(tmp_path / "a.ledger", small)
    with pytest.raises(LedgerConflictError, match="already a ledger for these rows"):
        make(tmp_path / "b.ledger", small)
    assert not (tmp_path / "b.ledger").exists()
    with pytest.raises(LedgerConflictError, match="exists already"):
        make(tmp_path / "a.ledger", (small[0] + 1, small[1]))
    make(tmp_path / "c.ledger", (small[0] + 1, small[1]))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("CAUSALFAIR_LEDGER_DIRS", str(tmp_path))
    with pytest.raises(LedgerConflictError, match="already a ledger"):
        make(elsewhere / "b.ledger", small)


def test_a_continued_ledger_adds_budgets_and_closes_the_old_one(tmp_path, small):
    first = make(tmp_path / "a.ledger", small)
    first.ask_many([positive] * 20)
    used = first._parts.session.ledger.state().mu2_used
    second = make(tmp_path / "b.ledger", small, parent=first)
    assert second._parts.meta["parent_mu2"] == used
    assert second.radius > first.radius
    with pytest.raises(BudgetExhaustedError, match="closed: continued in"):
        first.ask(positive)
    third = make(tmp_path / "c.ledger", small, parent=tmp_path / "b.ledger")
    assert third._parts.meta["parent_mu2"] == used
    with pytest.raises(LedgerConflictError, match="belongs to other rows"):
        make(tmp_path / "d.ledger", (small[0] + 1, small[1]), parent=third)
    with pytest.raises(LedgerConflictError, match="continue with mechanism='gaussian'"):
        make(tmp_path / "e.ledger", small, parent=third, mechanism="ladder")


def test_winners_can_be_followed_by_gaussian_answers(tmp_path, small):
    first = make(tmp_path / "a.ledger", small, mechanism="winner_only")
    first.ask_many([positive] * 10)
    plain = make(None, small).radius
    second = make(tmp_path / "b.ledger", small, parent=first)
    assert second._parts.meta["parent_log_desc"] > np.log(10)
    assert second.radius > plain
    naive_first = make(tmp_path / "n.ledger", (small[0] + 1, small[1]), mechanism="naive")
    naive_first.ask(positive)
    with pytest.raises(LedgerConflictError, match="cannot be carried over"):
        make(tmp_path / "m.ledger", (small[0] + 1, small[1]), parent=naive_first)


# --------------------------------------------------------------------------------------- secrets
def test_files_are_private_and_hold_no_pickles(tmp_path, small):
    path = tmp_path / "a.ledger"
    make(path, small)
    for file in (path, path.with_name("a.ledger.holdout.npz")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with np.load(path.with_name("a.ledger.holdout.npz"), allow_pickle=False) as archive:
        assert "y" in archive.files


def test_reports_and_exports_hold_no_secret(tmp_path, small):
    holdout = make(tmp_path / "a.ledger", small)
    holdout.ask(positive)
    key = holdout._parts.session.ledger.key()
    texts = [
        repr(holdout),
        str(holdout.report()),
        json.dumps(holdout.export()),
        repr(holdout._parts.session.noise),
        repr(holdout._parts.blocks.sealed),
    ]
    for text in texts:
        assert key.hex() not in text
    assert holdout._parts.meta["key_commitment"] in texts[1]


def test_a_revealed_key_recomputes_every_answer(tmp_path, small):
    holdout = make(tmp_path / "a.ledger", small)
    answers = [holdout.ask(positive) for _ in range(3)]
    key = bytes.fromhex(holdout.reveal_key())
    assert matches(key, holdout._parts.meta["key_commitment"])
    from causalfair.adaptive._noise import KeyedNoise, release_grid

    z = KeyedNoise(key).normal("answer", 0, 3)
    sigma = holdout._parts.session.mechanism.sigma
    grid = release_grid(sigma)
    for answer, draw in zip(answers, z, strict=True):
        exact = np.mean(small[0][:, 0] > 0) + sigma * draw
        assert answer.value == np.clip(np.rint(exact / grid) * grid, 0, 1)
    with pytest.raises(BudgetExhaustedError, match="its key was revealed"):
        holdout.ask(positive)


def test_pickles_carry_a_path_not_data(tmp_path, small):
    holdout = make(tmp_path / "a.ledger", small)
    content = pickle.dumps(holdout)
    assert len(content) < 1_000
    assert pickle.loads(content).ask(positive, query_id="x") == holdout.ask(positive, query_id="x")
    with pytest.raises(TypeError, match="cannot be sent to another process"):
        pickle.dumps(make(None, small))


# ------------------------------------------------------------------------------------ file system
def test_write_ahead_log_with_full_sync(tmp_path, small):
    holdout = make(tmp_path / "a.ledger", small)
    connection = holdout._parts.session.ledger.connection()
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_network_file_systems_use_a_rollback_journal(tmp_path, small, monkeypatch):
    monkeypatch.setattr(_ledger, "file_system", lambda path: "nfs4")
    with pytest.warns(CausalFairWarning, match="rollback journal"):
        holdout = make(tmp_path / "a.ledger", small)
    connection = holdout._parts.session.ledger.connection()
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
    assert holdout.ask(positive).query_index == 1


def test_file_system_of_a_path_is_known_on_linux(tmp_path):
    if Path("/proc/mounts").exists():
        assert _ledger.file_system(tmp_path)


def test_memory_ledgers_stay_in_their_process(small, monkeypatch):
    holdout = make(None, small)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(LedgerError, match="lives in one process"):
        holdout.ask(positive)


def test_a_removed_ledger_is_reported(tmp_path, small):
    path = tmp_path / "a.ledger"
    holdout = make(path, small)
    holdout._parts.session.ledger.close()
    path.unlink()
    with pytest.raises(LedgerError, match="has disappeared"):
        holdout.ask(positive)
