"""Evaluations of the clients that joined alone: the same numbers of these, NaN of the others, and the same training."""

import json
from itertools import pairwise

import pytest
import torch

from stages.artifacts.schemas import read
from stages.artifacts.store import Store
from stages.engines import rounds
from stages.engines.assembly import assemble
from stages.engines.engine import Local
from stages.engines.study import Point
from stages.observer import SILENT
from stages.train import train
from tests.helpers.cli import run
from tests.helpers.toy_runs import planned, played, same, settings, weights
from tests.helpers.toy_store import CLIENTS

HALF = {"join_ratio": 0.5, "rounds": 4}
SERIES = ("rounds/test_accuracy", "rounds/validation_accuracy", "rounds/test_auc")


@pytest.fixture(scope="module")
def everyone(written_toys):
    """All clients evaluated."""
    return played(planned(Store(written_toys), "fedproto", **HALF))[1]


def check(state, everyone):
    """Row by row: who is evaluated joined the round, or will join the first, and has the accuracy that it has anyway."""
    joined = everyone.history["rounds/joined"]
    chosen = torch.cat([joined[:1], joined])
    assert 0 < chosen.sum() < chosen.numel()
    for name in SERIES:
        wanted = everyone.history[name].masked_fill(~chosen, torch.nan)
        torch.testing.assert_close(state.history[name], wanted, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("changes", [{}, {"workers": 2}, {"offload": "disk"}], ids=["here", "workers", "disk"])
def test_in_this_process_and_in_others(toy_store, everyone, tmp_path, changes):
    plan = planned(toy_store, "fedproto", **HALF, eval_clients="joined", **changes)
    federation, state = assemble(plan)
    if state.shelf:
        state.shelf.folder = tmp_path / "clients"
    pool = Local().pool(plan, federation, state)
    try:
        rounds.run(federation, state, pool, SILENT, lambda s: None)
    finally:
        pool.close()
    check(state, everyone)
    if not state.shelf:
        one, other = ({n: v for n, v in weights(each).items() if "selected" not in n} for each in (state, everyone))
        assert same(one, other)


def test_over_flower_nobody_else_is_sent_a_message(toy_store, homes, everyone):
    pytest.importorskip("flwr")
    from tests.helpers.flower_nodes import Grid, over_flower

    grid = Grid(homes)
    *_, federation, state, pool = over_flower(toy_store, homes, "fedproto", grid=grid, eval_clients="joined", **HALF)
    before = len(grid.contents)
    rounds.run(federation, state, pool, SILENT, lambda s: None)
    check(state, everyone)
    joined = everyone.history["rounds/joined"]
    first, *between = [joined[0], *(one | other for one, other in pairwise(joined)), joined[-1]]
    assert len(grid.contents) - before == int(first.sum()) + sum(int(both.sum()) for both in between)
    assert not any(name.startswith("faults") for name in state.history)


@pytest.mark.usefixtures("undrawn")
def test_a_run_of_it_is_another_run_and_its_report_says_of_how_many_clients_it_tells(toy_store):
    plans = [planned(toy_store, "fedproto", **HALF, eval_clients=clients) for clients in ("all", "joined")]
    assert len({Point("x", plan).identity for plan in plans}) == 2
    for clients in ("all", "joined"):
        train(toy_store, clients, settings(algorithm="fedproto", eval_clients=clients, data="toy", **HALF), {})
    made = read(toy_store.open("joined"))
    assert (~torch.tensor(made.test_accuracy).isnan()).sum(1).tolist() == [CLIENTS // 2] * 5
    rows = json.loads(run(toy_store.root, "report", "--json").stdout)["rows"]
    assert [(row["choices"]["eval_clients"], row["evaluated_clients"], row["clients"]) for row in rows] == [
        ("all", None, CLIENTS), ("joined", CLIENTS // 2, CLIENTS)
    ]  # fmt: skip
    assert all(0 < row["worst_client"] <= 100 for row in rows)
    table = run(toy_store.root, "report", "--columns", "algorithm,evaluated").stdout
    assert "2 of 4" in table and "all" in table
    assert "Clients evaluated" in (toy_store.root / "reports" / "report" / "v1.html").read_text()
    only = run(toy_store.root, "report", "all", "--format", "markdown").stdout
    assert "Clients evaluated" not in only
