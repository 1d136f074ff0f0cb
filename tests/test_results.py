"""The table of the benchmarks' page is made of the results kept beside it."""

from tests.benchmarks import results


def test_the_page_shows_the_results_that_are_kept():
    assert results.table(results.load()) in results.KEPT.with_name("README.md").read_text()


def mean(seeds):
    return {"part": "digits", "row": "local", "seeds": seeds, "last": [80.0, 1.0]}


def run(seed, *accuracy):
    return {"part": "digits", "row": "local", "seed": seed, "accuracy": list(accuracy)}


def test_a_mean_stands_until_there_are_as_many_runs():
    first = results.merged([mean(2)], [run(0, 90.0)])
    assert results.score(first, "digits", "local") == "80.00 ± 1.00 (2)"
    both = results.merged(first, [run(1, 92.0)])
    assert results.score(both, "digits", "local") == "91.00 ± 1.41 (2)"


def test_a_run_takes_the_place_of_a_shorter_one_and_its_last_evaluations_count():
    longer = results.merged([run(0, 50.0)], [run(0, 10.0, 50.0, 60.0, 70.0, 80.0, 90.0)])
    assert results.score(longer, "digits", "local") == "70.00 (1)"
    assert results.score(longer, "digits", "gated") == "–"
