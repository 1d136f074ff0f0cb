import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from stages.artifacts import partial, schemas
from stages.artifacts.partial import Partial
from stages.artifacts.refs import Ref
from stages.artifacts.store import Store
from stages.errors import Interrupted, UserError
from stages.observer import Observer
from stages.report import chosen, page_path, report, tidy_table
from stages.settings import Report
from stages.train import train
from tests.helpers.cli import run
from tests.helpers.made_runs import made_data, made_latents, made_run
from tests.helpers.toy_runs import StopAfter, settings


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


class Page(HTMLParser):
    """The ids, headings, links and text of a page."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.told: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "section":
            self.ids += [value for name, value in attributes if name == "id"]
        self.told += [value for name, value in attributes if name == "aria-label"]
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


class Steps(Observer):
    def __init__(self):
        self.seen = []

    def advance(self, steps=1, **facts):
        self.seen.append(facts["run"])


def test_report_of_all_runs(store):
    data, latents, steps = made_data(store), made_latents(store), Steps()
    made_run(store, "fedktl-s0", data, latents, seed=0, hyper={"mu": 50.0})
    made_run(store, "fedktl-s1", data, latents, seed=1, hyper={"mu": 50.0})
    made_run(store, "local", data, algorithm="local")
    found = report(store, "first", Report(), steps)

    assert steps.seen == ["fedktl-s0@v1", "fedktl-s1@v1", "local@v1"]
    assert [row["runs"] for row in found.attributes["rows"]] == [["fedktl-s0@v1", "fedktl-s1@v1"], ["local@v1"]]
    assert found.attributes["rows"][0]["last"] == {"mean": 62.5, "std": 0.0}
    json.dumps(found.attributes["rows"], allow_nan=False)
    assert [made["ref"] for made in found.attributes["made_from"].values()] == found.settings["runs"]
    assert found.array("figures/accuracy-rounds").tobytes().startswith(b"<?xml")

    html = schemas.read(found).page
    assert page_path(store, found.ref) == store.root / "reports" / "first" / "v1.html"
    assert page_path(store, found.ref).read_text(encoding="utf-8") == html
    assert not list(store.root.glob("reports/first/*.draft"))
    page = Page(html)
    assert page.ids == ["diagnosis", "results", "figures", "pairs", "time", "settings", "lineage"]
    assert all(source.startswith("data:image/") for source in page.sources)  # nothing from outside
    assert (page.tags.count("svg"), page.tags.count("img")) == (6, 2)  # figures, and the pairs of fedktl and local
    assert page.tags.count("script") == 1 and "link" not in page.tags
    assert "fedktl goes from 25.0 % to 62.5 % in 2 rounds, 100.0 % at its best" in page.told[0]
    assert "<script>alert(1)</script>" in page.text  # the name of a class, as text
    for words in ("62.50 ± 0.00", "data/digits@v1", "latents/builtin@v1", "run/fedktl-s1@v1", "2.00 KiB", "50.0"):
        assert words in page.text
    assert "Accuracy of each client" in page.text and "Learning on the server" in page.text


@pytest.mark.usefixtures("undrawn")
def test_a_report_of_the_same_runs_is_not_written_again(store):
    data = made_data(store)
    made_run(store, "a", data)
    first = report(store, "first", Report())
    page_path(store, first.ref).unlink()  # as a killed process leaves it out
    assert report(store, "first", Report()).ref == first.ref and page_path(store, first.ref).exists()
    assert report(store, "first", Report(columns=("algorithm", "last"))).ref.version == 2
    made_run(store, "a", data)  # another run under the same name
    assert report(store, "first", Report()).settings["runs"] == ["a@v2"]
    assert store.versions("report", "first") == [1, 2, 3]


@pytest.mark.usefixtures("undrawn")
def test_runs_that_are_not_finished_are_shown_as_such(store):
    data = made_data(store)
    made_run(store, "a", data)
    facts = {"algorithm": "fedproto", "seed": 3, "settings": {"rounds": 50}, "made_from": {"data": data.identity}}
    going, failed, other = (Partial.begin(store, "run", name, facts | change) for name, change in (
        ("going", {}), ("failed", {"seed": 4}), ("other", {"made_from": {}}),
    ))  # fmt: skip
    failed.fail("Client 3 diverged.")
    for one in (going, failed, other):
        one.close()
    found = report(store, "first", Report())
    assert found.settings["unfinished"] == [
        "failed@v1 (0 of 50 rounds, failed)",
        "going@v1 (0 of 50 rounds, unfinished)",
    ]
    text = Page(schemas.read(found).page).text
    assert "failed@v1 fedproto 4 0 of 50 rounds failed: Client 3 diverged. going@v1" in text
    for unfinished in (False, True):
        with pytest.raises(
            UserError, match=r"going is not finished \(0 rounds are done\); finish it with `resume=going`"
        ):
            report(store, "second", Report(runs=("a", "going"), unfinished=unfinished))


@pytest.fixture
def halfway(toy_store):
    """A finished run of local training, and one of FedKTL that was stopped after two of its five rounds."""
    train(toy_store, None, settings(algorithm="local", rounds=5), {})
    with pytest.raises(Interrupted):
        train(toy_store, None, settings(rounds=5), {"fedktl": {"server_epochs": 2}}, StopAfter(2))
    return toy_store


def test_unfinished_runs_are_drawn_as_far_as_their_checkpoint_goes(halfway, request):
    found = report(halfway, "first", Report(unfinished=True))
    local, going = found.attributes["rows"]
    assert (local["variant"], local["rounds"], local["planned_rounds"]) == ("", 5, None)
    assert (going["variant"], going["rounds"], going["planned_rounds"]) == ("seed 0, round 2 of 5", 2, 5)
    assert list(found.sources) == ["run-0"] and found.settings["drawn"] == ["fedktl-toy-s0@v1 (round 2)"]
    page = Page(schemas.read(found).page)
    assert any("fedktl (seed 0, round 2 of 5) goes from" in told and "in 2 rounds" in told for told in page.told)
    assert "2 of 5" in page.text and "rank none of them" in page.text and "Learning on the server" in page.text
    assert page.text.split("Diagnosis")[0].count("local reaches") == 1  # the summary is of what is finished
    assert "local training" not in page.text.split("Results")[0]  # no comparison yet
    request.getfixturevalue("undrawn")
    assert report(halfway, "first", Report(unfinished=True)).ref == found.ref
    assert len(report(halfway, "first", Report()).attributes["rows"]) == 1
    shown = run(halfway.root, "report", "--unfinished")
    assert re.search(r"fedktl \(seed 0, round +.*2 of 5 +1\n", shown.stdout, re.DOTALL)
    assert "left out (--unfinished includes them): fedktl-toy-s0@v1" in " ".join(
        run(halfway.root, "report").stderr.split()
    )
    assert "leave out" in run(halfway.root, "report", "--unfinished", "--paper", "table1", code=2).stderr


@pytest.mark.usefixtures("undrawn")
def test_a_report_of_unfinished_runs_alone_equals_that_of_the_run_once_it_is_finished(halfway):
    halfway.remove(halfway.resolve("local-toy-s0", "run"))
    with pytest.raises(UserError, match="No run was made from toy@v1"):
        report(halfway, "first", Report())
    with pytest.raises(UserError, match="2 rounds are done; `unfinished` draws them"):
        report(halfway, "first", Report(runs=("fedktl-toy-s0",)))
    (going,) = report(halfway, "first", Report(runs=("fedktl-toy-s0",), unfinished=True)).attributes["rows"]
    assert going["planned_rounds"] == 5
    drawn = tidy_table(halfway, unfinished=True)
    assert set(drawn["finished"]) == {False}
    train(halfway, None, settings(rounds=5), {"fedktl": {"server_epochs": 2}})
    whole = tidy_table(halfway)
    assert "finished" not in whole
    accuracies = [
        [row for row in zip(*(table[name] for name in ("round", "client", "metric", "value")), strict=True)
         if row[2] == "test_accuracy" and row[0] <= 2]
        for table in (drawn, whole)
    ]  # fmt: skip
    assert accuracies[0] == accuracies[1] and len(accuracies[0]) == 12


@pytest.mark.usefixtures("undrawn")
def test_an_unfinished_run_without_its_data_or_with_foreign_facts_is_left_out_and_harms_nothing(halfway):
    path = partial.find_unfinished(halfway, Ref("fedktl-toy-s0"))
    held = Partial.reopen(path)
    held.record({**held.facts, "architectures": 3})
    held.close()
    assert len(report(halfway, "first", Report(unfinished=True)).attributes["rows"]) == 1
    held = Partial.reopen(path)
    held.record(
        {**held.facts, "architectures": ["x"] * 4, "made_from": {"data": {"kind": "data", "ref": "no", "seal": ""}}}
    )
    held.close()
    assert len(report(halfway, "first", Report(unfinished=True)).attributes["rows"]) == 1
    with pytest.raises(UserError, match="no data artifact named 'no'"):
        report(halfway, "first", Report(runs=("fedktl-toy-s0",), unfinished=True))


@pytest.mark.usefixtures("undrawn")
def test_only_settings_that_apply_are_on_the_page(store):
    settings = {"pairs": "bank", "pair_pixels": "bytes", "pairs_per_class": 3, "slow_rate": 0.0, "slow_seconds": 0.0}
    made_run(store, "a", made_data(store), made_latents(store), settings=settings)
    text = Page(schemas.read(report(store, "first", Report())).page).text
    assert "pairs_per_class" in text and "pair_pixels" not in text and "slow_rate" not in text


@pytest.mark.usefixtures("undrawn")
def test_several_data_sets_make_a_matrix(store):
    for name in ("one", "two"):
        data = made_data(store, name)
        for algorithm in ("fedktl", "local"):
            made_run(store, f"{algorithm}-{name}", data, algorithm=algorithm)
    refs = [f"{algorithm}-{name}" for name in ("one", "two") for algorithm in ("fedktl", "local")]
    text = Page(schemas.read(report(store, "first", Report(runs=refs))).page).text
    assert "Last accuracy (%) by data Algorithm one@v1 two@v1 fedktl 62.50 62.50 local 62.50 62.50" in text


@pytest.mark.usefixtures("undrawn")
def test_runs_of_other_data_and_repeats_are_left_out(store):
    made_run(store, "old", made_data(store, "older"))
    data = made_data(store)
    for name in ("a", "a", "b"):
        made_run(store, name, data, seed=int(name == "b"))
    rows = report(store, "first", Report()).attributes["rows"]
    assert [row["runs"] for row in rows] == [["a@v2", "b@v1"]]


def test_named_runs_come_once_each(store):
    data = made_data(store)
    for name in ("a", "a", "b"):
        made_run(store, name, data)
    assert [str(run.ref) for run in chosen(store, ("b", "a@v1", "runs/a", "b@v1"))] == ["b@v1", "a@v1", "a@v2"]


def test_nothing_to_report(store):
    with pytest.raises(UserError, match="no data artifact"):
        report(store, "first", Report())
    made_run(store, "old", made_data(store, "older"))
    made_data(store)
    with pytest.raises(UserError, match=r"No run was made from digits@v1.*`fedktl train`"):
        report(store, "first", Report())
    with pytest.raises(UserError, match="did you mean old"):
        report(store, "first", Report(runs=("olt",)))
    assert not (store.root / "reports").exists()


def test_without_validation_and_without_its_sources(store):
    data = made_data(store)
    none = {"rounds/validation_accuracy": np.full((3, 2), np.nan), "rounds/validation_samples": [0, 0]}
    made_run(store, "a", data, **none)
    store.remove(Ref("digits", 1, "data"))
    found = report(store, "first", Report(runs=("a",)))
    assert found.attributes["rows"][0]["validation_selected"] is None
    page = Page(schemas.read(found).page)
    assert "no longer in the store" in page.text and "Label distribution" not in page.text


def test_class_names_that_are_no_text_are_shown_all_the_same(store):
    """As data has them that was prepared before such names were refused."""
    made_run(store, "a", made_data(store, class_names=["\udcb9\udcb7", "\x1b[31mred", "x" * 500]))
    page = Page(schemas.read(report(store, "first", Report())).page)
    assert page.tags.count("svg") and "\x1b" not in page.text


def test_data_that_was_replaced_is_refused(store):
    made_run(store, "a", made_data(store))
    store.remove(Ref("digits", 1, "data"))
    made_data(store, class_names=["x", "y", "z"])  # digits@v1 again, with another content
    with pytest.raises(UserError, match=r"a@v1 was made from a different digits@v1"):
        report(store, "first", Report(runs=("a",)))
