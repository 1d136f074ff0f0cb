"""The paper's tables beside measured runs. The runs are those of made_runs.py: best on test 100 % unless told."""

import csv
import io
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from fedktl_cli.main import app
from fedktl_cli.report import PAPER
from stages.artifacts.refs import Ref
from stages.errors import UserError
from stages.report import beside_paper
from stages.reporting import paper
from stages.settings import Prepare, Train
from tests.helpers.made_runs import made_data, made_latents, made_run

CIFAR10 = Prepare(dataset="cifar10", beta=0.1, clients=20).as_dict()
HTFE8 = Train(models="HtFE8").as_dict()
WHOLE = {"etf": True, "mmd": True, "transfer": True, "lambda": 1.0}


def test_every_table_is_offered_and_can_be_read():
    assert tuple(paper.tables()) == PAPER
    sizes = {table: len(paper.cells(table)) for table in PAPER}
    assert sizes == {
        "table1": 64, "table2": 64, "table5": 18, "table6": 12, "table8": 2, "table9": 6, "ablation": 5
    }  # fmt: skip
    for table, content in paper.tables().items():
        for row in content["rows"].values():
            assert len(row["published"].split()) == len(content["columns"]), table


def test_numbers_as_they_were_published():
    found = {(table, c.column, c.row): c.published for table in PAPER for c in paper.cells(table)}
    assert found["table1", "Cifar10, pathological", "LG-FedAvg"] == {"mean": 86.82, "std": 0.26}
    assert found["table1", "Tiny-ImageNet, practical", "FedKTL"] == {"mean": 28.17, "std": 0.18}
    assert found["table1", "Cifar10, practical", "FedProto"] == {"mean": 82.07, "std": 1.64}
    assert found["table2", "HtM10", "FedGH"] is None
    assert found["table2", "200 clients", "FedKTL"] == {"mean": 34.24, "std": None}
    assert found["table5", "down", "FedGen"]["mean"] == 7.66
    assert found["table6", "lambda 0.1", "Bench"]["mean"] == 28.36
    assert found["table8", "Cifar10", "Stable Diffusion"]["mean"] == 87.71
    assert found["table9", "2 shots", "KTL"]["mean"] == 8.76
    assert found["ablation", "Tiny-ImageNet", "complete"]["mean"] == 28.17


def measured(store, table, **arguments) -> dict[tuple[str, str], dict]:
    """The cells of a table that were run."""
    cells = beside_paper(store, table, **arguments)["cells"]
    return {(cell["column"], cell["row"]): cell for cell in cells if cell["runs"]}


def run_of(store, name, algorithm="lg-fedavg", latents=None, seed=0, data=None, train=None, hyper=None, **arrays):
    data = data or made_data(store, "data", **CIFAR10)
    settings = {**HTFE8, **(train or {})}
    return made_run(
        store, name, data, latents, algorithm=algorithm, seed=seed, hyper=hyper, settings=settings, **arrays
    )


def test_a_cell_with_two_seeds(store):
    data = made_data(store, **CIFAR10)
    lower = np.array([[0.0, 0.0], [0.8, 0.8], [0.5, 0.5]])
    run_of(store, "whatever", data=data)
    run_of(store, "its-name", data=data, seed=1, **{"rounds/test_accuracy": lower})
    ((where, cell),) = measured(store, "table1").items()
    assert where == ("Cifar10, practical", "LG-FedAvg")
    assert cell["measured"] == pytest.approx({"mean": 90, "std": 20 / 2**0.5})  # of 100 and 80
    assert cell["difference"] == pytest.approx(90 - 84.55)
    assert (cell["seeds"], cell["rounds"], cell["runs"]) == ([0, 1], 2, ["whatever@v1", "its-name@v1"])
    assert paper.texts(cell) == ["84.55 ± 0.51", "90.00 ± 14.14", "+5.45", "2", "2"]


def test_cells_that_were_not_run_are_dashes(store):
    cell = beside_paper(store, "table2")["cells"][4 * 8]  # HtM10, LG-FedAvg
    assert (cell["column"], cell["row"]) == ("HtM10", "LG-FedAvg")
    assert paper.texts(cell) == ["–"] * 5


@pytest.mark.parametrize(
    ("prepare", "train"),
    [
        ({"beta": 0.5}, {}), ({"clients": 50}, {}), ({"few_shot": 5}, {}), ({"dataset": "mnist"}, {}),
        ({"partition": "iid"}, {}), ({}, {"models": "small"}), ({}, {"join_ratio": 0.5}),
    ],
)  # fmt: skip
def test_a_run_of_other_choices_measures_no_cell(prepare, train):
    recorded = {**HTFE8, **CIFAR10, "algorithm": "lg-fedavg", "weights": ""}
    fitting = [cell.column for cell in paper.cells("table1") if cell.fits(recorded)]
    assert fitting == ["Cifar10, practical"]
    assert not any(cell.fits({**recorded, **prepare, **train}) for cell in paper.cells("table1"))


def test_where_a_run_belongs_follows_from_its_data(store):
    pathological = {**CIFAR10, "dataset": "cifar100", "partition": "pathological", "classes_per_client": 10}
    run_of(store, "other", "fd", data=made_data(store, "o", **pathological))  # it has another partition
    of_library = pathological | {"class_holders": "consecutive"}
    run_of(store, "a", "fd", data=made_data(store, "p", **of_library))
    many = {**CIFAR10, "dataset": "cifar100", "clients": 100}
    run_of(store, "b", "fml", hyper={"beta": 0.5}, data=made_data(store, "m", **many), train={"join_ratio": 0.5})
    assert list(measured(store, "table1")) == [("Cifar100, pathological", "FedDistill")]
    assert list(measured(store, "table2")) == [("100 clients", "FML")]


def test_images_from_ones_own_file_go_by_the_files_name(store):
    run_of(store, "a", data=made_data(store, **{**CIFAR10, "dataset": "npz", "source": "/any/where/Cifar10.npz"}))
    assert list(measured(store, "table1")) == [("Cifar10, practical", "LG-FedAvg")]


def test_fedktl_goes_by_its_generator_and_hyperparameters(store):
    xl, diffusion = made_latents(store, "xl", "stylegan-xl"), made_latents(store, "sd", "stable-diffusion")
    built_in = made_latents(store)
    data = made_data(store, **CIFAR10)
    for name, latents in (("a", xl), ("b", diffusion), ("c", built_in)):
        run_of(store, name, "fedktl", latents, data=data, hyper=WHOLE)
    assert {where: cell["runs"] for where, cell in measured(store, "table8").items()} == {
        ("Cifar10", "StyleGAN-XL"): ["a@v1"], ("Cifar10", "Stable Diffusion"): ["b@v1"]
    }  # fmt: skip
    assert list(measured(store, "table1")) == [("Cifar10, practical", "FedKTL")]
    tiny = made_data(store, "tiny", **{**CIFAR10, "dataset": "tiny-imagenet"})
    run_of(store, "d", "fedktl", xl, data=tiny, hyper={**WHOLE, "lambda": 0.0})
    run_of(store, "e", "fedktl", data=tiny, hyper={**WHOLE, "transfer": False})
    assert list(measured(store, "ablation")) == [
        ("Tiny-ImageNet", "without L^MSE"), ("Tiny-ImageNet", "without transfer")
    ]  # fmt: skip
    assert len(measured(store, "table1")) == 1


def test_table_6_goes_by_lambda_and_the_path_of_the_weights(store):
    tiny = made_data(store, "tiny", **{**CIFAR10, "dataset": "tiny-imagenet"})
    for name, weights, lambda_ in (("a", "w/stylegan3-r-ffhqu-256x256.pkl", 0.5), ("b", "Benches-512.pkl", 0.05)):
        latents = made_latents(store, name, "stylegan3", weights)
        run_of(store, name, "fedktl", latents, data=tiny, hyper={**WHOLE, "lambda": lambda_})
    assert list(measured(store, "table6")) == [("lambda 0.05", "Bench"), ("lambda 0.5", "FFHQ-U")]


def test_floats_up_and_down_in_millions(store):
    data = made_data(store, **{**CIFAR10, "dataset": "cifar100"})
    traffic = {
        "rounds/upload_floats": [[600_000, 420_000], [600_000, 440_000]],
        "rounds/download_floats": [[0, 0], [500_000, 520_000]],  # nothing comes down in the first round
    }
    run_of(store, "a", data=data, train={"models": "small"}, **traffic)
    cells = measured(store, "table5")
    assert list(cells) == [("up", "LG-FedAvg"), ("down", "LG-FedAvg")]
    assert [cell["measured"]["mean"] for cell in cells.values()] == pytest.approx([1.03, 1.02])
    assert paper.texts(cells["down", "LG-FedAvg"])[:3] == ["1.03", "1.02", "-0.01"]


def test_of_several_choices_the_one_run_last_counts(store):
    data = made_data(store, **CIFAR10)
    run_of(store, "a", data=data, seed=0)
    run_of(store, "b", data=data, seed=1, train={"lr": 0.1})
    run_of(store, "c", data=data, seed=0)  # repeats a
    (cell,) = measured(store, "table1").values()
    assert cell["runs"] == ["c@v1"]
    (cell,) = measured(store, "table1", runs=["a", "b"]).values()
    assert cell["runs"] == ["b@v1"]


def test_a_run_whose_data_is_gone_measures_nothing(store):
    run_of(store, "a")
    store.remove(Ref("data", 1, "data"))
    assert not measured(store, "table1")


def test_formats(store):
    run_of(store, "a")
    comparison = beside_paper(store, "table1")
    assert json.loads(paper.as_text(comparison, "json")) == comparison
    rows = {(row["column"], row["row"]): row for row in csv.DictReader(io.StringIO(paper.as_text(comparison, "csv")))}
    assert len(rows) == 64
    run = rows["Cifar10, practical", "LG-FedAvg"]
    assert (run["published.mean"], run["published.std"], run["measured.mean"]) == ("84.55", "0.51", "100.0")
    assert float(run["difference"]) == pytest.approx(15.45) and (run["seeds"], run["runs"]) == ("0", "a@v1")
    assert rows["Cifar10, practical", "FedKTL"]["measured.mean"] == ""
    line = "| Cifar10, practical | LG-FedAvg | 84.55 ± 0.51 | 100.00 | +15.45 | 2 | 1 |"
    assert line in paper.as_text(comparison, "markdown").splitlines()
    latex = paper.as_text(comparison, "latex")
    assert r"\begin{table*}" in latex and r"\label{tab:table1}" in latex
    assert latex.count(r"\quad measured") == 2 and "100.00" in latex  # LG-FedAvg's alone, in both halves of the table
    assert r"$\mathbf{88.43 \pm 0.13}$" in latex and r"\underline{$87.32 \pm 0.31$}" in latex


def test_a_table_that_there_is_not(store):
    with pytest.raises(UserError, match="did you mean table1"):
        beside_paper(store, "tabel1")


def test_the_command_line(store, tmp_path):
    run_of(store, "a")

    def command(*arguments: str):
        return CliRunner().invoke(app, ["--store", str(store.root), "report", "--paper", "table1", *arguments])

    shown = command().stdout
    assert "Cifar10, practical" in shown and "+15.45" in shown
    assert len(json.loads(command("--json").stdout)["cells"]) == 64
    command("--output", str(tmp_path / "table.md"))
    assert (tmp_path / "table.md").read_text().startswith("| Setting |")
    assert not (store.root / "reports").exists()
    for refused in (command("--format", "html"), command("--name", "x")):
        assert refused.exit_code == 2 and "--paper makes no page" in refused.stderr
