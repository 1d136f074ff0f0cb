"""One file per algorithm, found by name. Each defines ALGORITHM; importing one needs torch, so it happens on demand."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stages import plugins
from stages.errors import UserError, unknown
from stages.settings import key

if TYPE_CHECKING:
    from stages.algorithms.contract import AnyAlgorithm

SOURCES = {  # the algorithms' own, told without importing them
    "fedktl": "Zhang et al., CVPR 2024, arXiv 2403.15760",
    "fedktl-gated": "FedKTL; the gate is this program's own",
    "ktl": "Zhang et al., CVPR 2024, arXiv 2403.15760",
    "fedproto": "Tan et al., AAAI 2022, arXiv 2105.00243",
    "fedtgp": "Zhang et al., AAAI 2024, arXiv 2401.03230",
    "fd": "Jeong et al., 2018, arXiv 1811.11479",
    "fml": "Shen et al., 2020, arXiv 2006.16765",
    "fedkd": "Wu et al., Nature Communications 2022, arXiv 2108.13323",
    "fedmrl": "Yi et al., NeurIPS 2024, arXiv 2406.00488",
    "fedavg": "McMahan et al., AISTATS 2017, arXiv 1602.05629",
    "lg-fedavg": "Liang et al., 2020, arXiv 2001.01523",
    "fedgen": "Zhu et al., ICML 2021, arXiv 2105.10056",
    "fedgh": "Yi et al., ACM MM 2023, arXiv 2303.13137",
    "fedl2g": "Zhang et al., 2024, arXiv 2410.06490",
    "local": "no federation",
}
NAMES = tuple(SOURCES)
FILES = {"fedktl": "fedktl_reference"}  # of algorithms whose file has another name


def get(name: str) -> AnyAlgorithm:
    """The algorithm called `name`, or at `package.module:ALGORITHM`; UserError offers the near names."""
    if plugins.is_path(name):
        from stages.algorithms.own import load

        return load(name)
    if name not in NAMES:
        raise unknown("algorithm", name, NAMES)
    file = FILES.get(name, name).replace("-", "_")
    algorithm: AnyAlgorithm = importlib.import_module(f"stages.algorithms.{file}").ALGORITHM
    return algorithm


def assigned(
    chosen: Sequence[str], assignments: Sequence[str], preset: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Hyperparameters that depart from the defaults, by algorithm: the preset's, then `KEY=VALUE` assignments.

    A key goes to every chosen algorithm that has it; `ALGORITHM.KEY=VALUE` to one. Unknown keys are a UserError.
    """
    known = {name: {key(field) for field in dataclasses.fields(get(name).Hyper)} for name in chosen}
    result: dict[str, dict[str, Any]] = {name: dict(preset.get(name, {})) for name in chosen}
    for assignment in assignments:
        left, equals, value = assignment.partition("=")
        only, _, name = left.strip().rpartition(".")
        if not equals or not name:
            raise UserError(f"'{assignment}' sets nothing; write KEY=VALUE, as in mu=50.")
        if only and only not in chosen:
            raise unknown("algorithm in this run", only, chosen)
        name = name.replace("-", "_").rstrip("_")
        takers = [algorithm for algorithm in chosen if name in known[algorithm] and only in ("", algorithm)]
        if not takers:
            raise unknown(f"hyperparameter of {only or ', '.join(chosen)}", name, set().union(*known.values()))
        for algorithm in takers:
            result[algorithm][name] = value.strip()
    return result
