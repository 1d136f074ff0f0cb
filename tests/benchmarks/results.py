"""What the runs of `transfer` ended with, and the table that `README.md` shows of it.

    python -m tests.benchmarks.results                  # the table of README.md
    python -m tests.benchmarks.results --all            # every row of every part
    python -m tests.benchmarks.results STORE            # first keeps the finished runs of STORE in results.jsonl

`results.jsonl` holds a line a run: its part, row and seed, the day it ended, the test accuracy at each evaluation, and the
floats that all clients together upload a round. Of runs before 2026-11-27 only the mean and deviation over seeds are left.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from stages.artifacts.schemas import read
from stages.artifacts.store import Store
from stages.reporting import formats, scores
from stages.reporting.rows import over_seeds
from tests.benchmarks.transfer import PARTS

KEPT = Path(__file__).with_name("results.jsonl")
LAST = 5  # evaluations whose mean is the accuracy of a run
RECIPE = "learned-head-100-mu-50"
COLUMNS = {
    "local": "local", "no transfer": "no-transfer", "one pair": "trained-bank", "one pair, untrained": "untrained-bank",
    "recipe": f"trained-{RECIPE}", "recipe, untrained": f"untrained-{RECIPE}", "`fedktl-gated`": "gated",
}  # fmt: skip
SETTINGS = {
    "digits": "digits, ten clients",
    "digits-2": "digits, two images a class",
    "digits-9": "digits, nine",
    "shots-2": "CIFAR-10, two images a class",
    "shots-9": "CIFAR-10, nine",
    "shots-23": "CIFAR-10, 23",
    "folder": "a folder of pictures",
    "folder-dealt": "the same, dealt anew for each seed",
    "sound": "CIFAR-10 mini, 20 clients",
    "reference": "the same, `--preset reference`",
}
Record = dict[str, Any]


def collected(store: Store) -> list[Record]:
    """A record of each finished run that `transfer` made."""
    found = []
    for folder in sorted(path.name for path in (store.root / "runs").iterdir() if store.versions("run", path.name)):
        name, seed = re.fullmatch(r"(.+)-s(\d+)", folder).groups()  # type: ignore[union-attr] # transfer names them so
        part = max((part for part in PARTS if name.startswith(f"{part}-")), key=len)
        run = read(store.open(folder, "run"))
        found.append({
            "part": part, "row": name.removeprefix(f"{part}-"), "seed": int(seed),
            "date": run.artifact.attributes["created"][:10],
            "accuracy": scores.accuracy(run).round(3).tolist(), "upload": int(run.upload_floats[-1].sum()),
        })  # fmt: skip
    return found


def merged(known: Iterable[Record], new: Iterable[Record]) -> list[Record]:
    """By part and row; a run takes the place of what was known of its seed, and runs that of a mean over no more seeds."""
    runs = {run_of(record): record for record in (*known, *new)}
    seeds = Counter((part, row) for part, row, seed, note in runs if seed is not None)
    kept = [
        r for (part, row, seed, note), r in runs.items() if "last" not in r or note or r["seeds"] > seeds[part, row]
    ]
    return sorted(kept, key=lambda r: (list(PARTS).index(r["part"]), r["row"], r.get("seed", -1)))


def run_of(record: Record) -> tuple[str, str, int | None, str | None]:
    """Part, row, seed (None of a mean over seeds) and what was different then."""
    return record["part"], record["row"], record.get("seed"), record.get("note")


def score(records: list[Record], part: str, row: str, note: str | None = None) -> str:
    """`84.44 ± 0.29`, mean of the last evaluations; with the number of seeds if they are not three."""
    found = [r for r in records if (r["part"], r["row"], r.get("note")) == (part, row, note)]
    if not found:
        return "–"
    if mean := next((r for r in found if "last" in r), None):
        seeds, over = mean["seeds"], dict(zip_longest(("mean", "std"), mean["last"]))
    else:
        seeds, over = len(found), over_seeds([float(np.mean(r["accuracy"][-LAST:])) for r in found])
    return formats.accuracy(over) + ("" if seeds == 3 else f" ({seeds})")


def table(records: list[Record]) -> str:
    rows = [[label, *(score(records, part, row) for row in COLUMNS.values())] for part, label in SETTINGS.items()]
    return formats.markdown(["", *COLUMNS], rows, 1)


def all_tables(records: list[Record]) -> str:
    tables = []
    for part in PARTS:
        rows = dict.fromkeys((r["row"], r.get("note")) for r in records if r["part"] == part)
        cells = [[f"{row}, {note}" if note else row, score(records, part, row, note)] for row, note in rows]
        if cells:
            tables.append(formats.markdown([part, f"last {LAST} evaluations (seeds, if not 3)"], cells, 1))
    return "\n".join(tables)


def load() -> list[Record]:
    return [json.loads(line) for line in KEPT.read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, nargs="?")
    parser.add_argument("--all", action="store_true")
    asked = parser.parse_args()
    if asked.store:
        records = merged(load(), collected(Store(asked.store)))
        KEPT.write_text("".join(json.dumps(record) + "\n" for record in records))
    print((all_tables if asked.all else table)(load()))


if __name__ == "__main__":
    main()
