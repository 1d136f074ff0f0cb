"""The mean of a score over clients, and that all who tell it tell the same."""

import numpy as np

from fedktl_cli import train
from stages.artifacts.schemas import read
from stages.artifacts.store import Store
from stages.engines.making import DONE, Outcome
from stages.means import over_clients, selected
from stages.reporting import scores
from tests.helpers.made_runs import made_data, made_run


def test_clients_count_by_their_images_and_missing_ones_not_at_all():
    scores = np.array([[1.0, 0.5, np.nan], [np.nan, 0.25, np.nan], [np.nan, np.nan, 0.5]])
    found = over_clients(scores, np.array([1, 3, 0]))
    assert found[:2].tolist() == [62.5, 25] and np.isnan(found[2])  # nobody with images was there
    assert over_clients(scores[0], np.array([1, 3, 0])) == 62.5


def test_the_first_of_the_best_evaluations_is_selected():
    assert selected(np.array([[0.2, 1], [0.5, np.nan], [0.5, 0.1], [0.5, 0.2]]), np.array([2, 0])) == 1
    assert selected(np.full((3, 2), np.nan), np.array([0, 0])) is None


def test_the_command_tells_what_the_report_tells(tmp_path):
    store, said = Store(tmp_path), []
    accuracies = np.array([[np.nan, 0.5], [1.0, 1.0], [np.nan, np.nan]])
    run = made_run(store, "a", made_data(store), **{"rounds/test_accuracy": accuracies})

    class Terminal:
        json = said.append

    train.report(Terminal, [Outcome("a", DONE, run)], True)
    assert [one["accuracy"] for one in said[0]["runs"]] == [[50, 100, None]]
    assert scores.best_on_test(read(run)) == 100 and scores.last(read(run)) == 100  # with somebody there
