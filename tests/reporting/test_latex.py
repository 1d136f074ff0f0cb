"""Tables for a paper: what stands in them, and that they fit its columns."""

import re
import shutil
import subprocess

import pytest

from stages.reporting import formats, latex, paper
from stages.reporting.matrix import matrix, ranked
from tests.helpers.made_runs import ROW

ALGORITHMS = ("fedktl", "fedproto", "fedtgp", "fedavg", "local")


def row(algorithm="fedktl", data="cifar10@v1", mean=80.0, std=None, variant="", models="small"):
    score = {"mean": mean, "std": std}
    return ROW | {
        "algorithm": algorithm, "data": data, "variant": variant, "models": models, "last": score,
        "validation_selected": score, "best_on_test": {"mean": mean + 1, "std": std},
    }  # fmt: skip


def rows(data=("cifar10@v1",), std=0.5):
    return [row(name, one, 80 - place, std) for one in data for place, name in enumerate(ALGORITHMS)]


def test_algorithms_by_data_with_the_best_bold_and_the_second_underlined():
    text = latex.of_rows(rows(("cifar10@v1", "digits_10@v2")), "last")
    assert text.startswith("\\begin{table}[t]\n\\centering") and text.endswith("\\end{table}\n")
    assert r"Algorithm & cifar10@v1 & digits\_10@v2 \\" in text
    assert r"fedktl & $\mathbf{80.00 \pm 0.50}$ & $\mathbf{80.00 \pm 0.50}$ \\" in text
    assert r"fedproto & \underline{$79.00 \pm 0.50$} & " in text and r"fedtgp & $78.00 \pm 0.50$ & " in text
    assert r"Test accuracy (\%) after the last round, mean and standard deviation over 2 seeds." in text
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\label{tab:accuracy-last}"))


def test_the_caption_tells_how_many_seeds_there_are():
    text = latex.of_rows([row() | {"runs": ["a@v1"] * 3}, row("local")], "last")
    assert "over 2 to 3 seeds" in text


def test_the_metric_asked_for():
    assert r"\textbf{80.00}" in latex.of_rows(rows(std=None), "selected")
    assert r"\textbf{81.00}" in latex.of_rows(rows(std=None), "best")


def test_what_differs_is_across():
    assert (matrix(rows(("a", "b"))).across, matrix([row(models="CNN"), row()]).across) == ("data", "models")
    variants = [row(name, variant=variant) for name in ("fedktl", "ktl") for variant in ("mu=1", "mu=10")]
    assert (matrix(variants).across, matrix(variants).rows) == ("variant", ["fedktl", "ktl"])
    alone = matrix([row(variant="mu=1"), row(variant="mu=10"), row("local")])
    assert (alone.across, alone.rows) == ("data", ["fedktl (mu=1)", "fedktl (mu=10)", "local"])
    both = matrix([row(data="a"), row(data="b", models="CNN")])
    assert (both.across, both.rows) == ("data", ["fedktl, small", "fedktl, CNN"])


def test_ranks_are_of_what_is_printed():
    assert ranked([80.001, 80.004, 79.0, 78.0, None]) == [0, 0, 1, None, None]
    assert ranked([80.0, None]) == [None, None]


def test_escapes_what_latex_reserves():
    assert latex.escaped(r"50% & a_b {x} #1 $ ~ ^ \end – 1.5 ± 0.2") == (
        r"50\% \& a\_b \{x\} \#1 \$ \textasciitilde{} \textasciicircum{} \textbackslash{}end -- $1.5 \pm 0.2$"
    )


DOCUMENT = r"""\documentclass[10pt,twocolumn,letterpaper]{article}
\usepackage[textwidth=495pt,columnsep=22pt]{geometry}\usepackage{booktabs}\begin{document}%s\end{document}"""


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
def test_every_table_compiles_and_is_no_wider_than_its_column(tmp_path):
    long = "few_shot=4, batch_size=64, feature_dim=256, initial_weights=independent, wire=fp16"
    tables = [
        latex.of_rows(rows(), "last"),
        latex.of_rows(rows(("cifar10@v1", "cifar100@v2")), "best"),
        latex.of_rows(rows([f"data_{n}@v1" for n in range(4)]), "best"),
        latex.of_rows(rows([f"data_{n}@v1" for n in range(12)]), "last"),
        latex.of_rows([row(variant=long), row(variant=long.replace("64", "8")), row("local")], "selected"),
        latex.of_rows(rows(), "last", list(formats.COLUMNS)),
        latex.of_rows(rows(), "last", ["algorithm", "worst", "up"]),
        *(paper.as_text(paper.compared(name, []), "latex") for name in paper.tables()),
    ]
    (tmp_path / "t.tex").write_text(DOCUMENT % "\n\\clearpage\n".join(tables))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert not re.findall(r"Overfull \\hbox.*", done.stdout)
