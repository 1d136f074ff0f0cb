"""A report's first sentence, by hand."""

from stages.reporting.summary import summary
from tests.helpers.made_runs import ROW


def of(algorithm, mean, upload, selected=None, planned=None, std=None, data="digits@v1"):
    accuracy = {"mean": mean, "std": std}
    chosen = None if selected is None else {"mean": selected, "std": std}
    facts = {"algorithm": algorithm, "variant": "", "data": data, "last": accuracy, "validation_selected": chosen}
    return ROW | facts | {"upload_floats_per_round": upload, "planned_rounds": planned}


def test_the_best_that_federates_is_told_beside_its_next_peer_and_local_training():
    rows = [of("local", 91.8, 0), of("fedtgp", 85.0, 30_000), of("fedktl", 91.5, 600, std=0.2), of("fd", 80.0, 600)]
    assert summary(rows) == (
        "fedktl reaches 91.50 ± 0.20 % test accuracy after the last round: 6.50 points above fedtgp with 2 % of its upload, "
        "and 0.30 points below local, which uploads nothing. Its clients together upload 600 floats a round."
    )


def test_rounds_selected_on_validation_images_count_where_all_have_them():
    rows = [of("fedktl", 80.0, 600, selected=90.0), of("fedproto", 85.0, 300, selected=90.0)]
    assert summary(rows).startswith(
        "fedktl reaches 90.00 % test accuracy at the rounds selected on validation images: level with fedproto with 2 times"
    )
    assert summary([*rows, of("local", 70.0, 0)]).startswith(
        "fedproto reaches 85.00 % test accuracy after the last round"
    )


def test_other_data_and_unfinished_runs_are_no_rivals():
    rows = [of("fedktl", 80.0, 600), of("fedproto", 70.0, 9, data="mnist@v1"), of("fedtgp", 99.0, 9, planned=100)]
    told = summary(rows)
    assert told == (
        "fedktl reaches 80.00 % test accuracy after the last round. Its clients together upload 600 floats a round."
    )


def test_where_nobody_federates_the_best_is_told():
    assert summary([of("local", 80.0, 0)]).endswith("after the last round. Its clients together upload nothing.")


def test_a_lead_within_the_deviations_is_called_none():
    told = summary([of("fedktl", 93.0, 600, std=0.3), of("local", 92.5, 0, std=0.4)])  # noise: 0.5
    assert "not clearly apart from local (0.50 points above), which uploads nothing" in told
    assert "0.51 points above local" in summary([of("fedktl", 93.01, 600, std=0.3), of("local", 92.5, 0, std=0.4)])
