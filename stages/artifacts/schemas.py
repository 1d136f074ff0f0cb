"""What each kind of artifact holds, as typed readers. One table maps (kind, schema version) to its reader."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import numpy as np

from stages.artifacts import metrics
from stages.artifacts.run_array import RunArray, array
from stages.artifacts.store import Artifact
from stages.errors import UserError
from stages.foreign import understood

SPLITS = ("train", "validation", "test")
EVALUATED = ("test", "validation")  # those on which clients are evaluated
T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class Split:
    """One split of every client's images, sorted by client."""

    images: np.ndarray  # uint8 [n, channels, height, width]
    labels: np.ndarray  # int64 [n]
    offsets: np.ndarray  # int64 [clients + 1]; client k owns rows offsets[k]:offsets[k + 1]

    def __repr__(self) -> str:
        return f"<{len(self.labels)} images of {len(self.offsets) - 1} clients>"

    def rows(self, client: int) -> slice:
        return slice(int(self.offsets[client]), int(self.offsets[client + 1]))


@dataclass(frozen=True, repr=False)
class Content:
    """What an artifact holds, shown in one line."""

    artifact: Artifact

    def __repr__(self) -> str:
        return f"<content of {self.artifact!r}>"


@dataclass(frozen=True, repr=False)
class Data(Content):
    train: Split
    validation: Split
    test: Split
    counts: np.ndarray  # int64 [clients, classes], all splits together
    class_names: list[str]

    @property
    def clients(self) -> int:
        return int(self.counts.shape[0])

    @property
    def classes(self) -> int:
        return int(self.counts.shape[1])


@dataclass(frozen=True)
class DataSpec:
    """What is known about data without reading its images."""

    classes: int
    shape: tuple[int, int, int]  # of an image: channels, height, width
    sizes: dict[str, list[int]]  # images of each client, by split

    @property
    def clients(self) -> int:
        return len(self.sizes["train"])


@dataclass(frozen=True, repr=False)
class Latents(Content):
    latents: np.ndarray  # float32 [n, H]
    images: np.ndarray  # uint8 [n, 3, size, size]
    generator: dict[str, Any]  # the descriptor: what rendered them
    embeddings: dict[str, np.ndarray] = field(default_factory=dict)  # of a prompt, float32, by name


@dataclass(frozen=True, repr=False)
class Run(Content):
    """R rounds were run among K clients, E of them evaluated; P rounds have M pairs each kept as pictures. C classes."""

    facts: dict[str, Any]  # algorithm, data, latents, models, parameters per client, ...
    evaluated: np.ndarray = field(
        metadata=array("rounds/evaluated", "int64", "E", "rounds done at each evaluation; 0 is the untrained models")
    )
    test_accuracy: np.ndarray = field(
        metadata=array("rounds/test_accuracy", "float64", "E K", "in 0..1; NaN where not evaluated, or without images")
    )
    validation_accuracy: np.ndarray = field(metadata=array("rounds/validation_accuracy", "float64", "E K", "likewise"))
    test_samples: np.ndarray = field(
        metadata=array("rounds/test_samples", "int64", "K", "images, the weights of a mean over clients", history=False)
    )
    validation_samples: np.ndarray = field(
        metadata=array("rounds/validation_samples", "int64", "K", "likewise", history=False)
    )
    test_auc: np.ndarray = field(metadata=array(
        "rounds/test_auc", "float64", "E K", "micro-averaged area under the ROC curve, in 0..1; NaN as for the accuracy",
        optional=True, absent=np.nan,
    ))  # fmt: skip
    test_confusion: np.ndarray = field(metadata=array(
        "rounds/test_confusion", "int64", "1 L L",
        "at the last evaluation, test images of the clients by class and by the label they got", optional=True,
    ))  # fmt: skip
    joined: np.ndarray = field(metadata=array("rounds/joined", "bool", "R K", "the client was asked to train"))
    uploaded: np.ndarray = field(metadata=array("rounds/uploaded", "bool", "R K", "it joined, and its upload arrived"))
    upload_floats: np.ndarray = field(metadata=array("rounds/upload_floats", "int64", "R K"))
    upload_bytes: np.ndarray = field(metadata=array("rounds/upload_bytes", "int64", "R K"))
    download_floats: np.ndarray = field(metadata=array("rounds/download_floats", "int64", "R K"))
    download_bytes: np.ndarray = field(metadata=array("rounds/download_bytes", "int64", "R K"))
    peak_memory: np.ndarray = field(metadata=array("rounds/peak_memory", "int64", "R", "bytes"))
    simulated_seconds: np.ndarray = field(metadata=array(
        "rounds/simulated_seconds", "float64", "R K", "by which a slow client is late; 0 if none was simulated",
        optional=True,
    ))  # fmt: skip
    wire: dict[str, np.ndarray] = field(metadata=array(
        "rounds/wire_<traffic>", "int64", "R K", "`upload_bytes` and `download_bytes` as handed to the network"
    ))  # fmt: skip
    missing: np.ndarray = field(metadata=array(
        "faults/missing", "int64", "X 3", "round (from 1), client, reason (1 no node, 2 late, 3 failed, 4 refused)",
        optional=True,
    ))  # fmt: skip
    seconds: dict[str, np.ndarray] = field(metadata=array("seconds/<phase>", "float64", "R"))
    client_metrics: dict[str, np.ndarray] = field(
        metadata=array("client_metrics/<name>", "float64", "R K", "NaN where a client did not take part")
    )
    server_metrics: dict[str, np.ndarray] = field(
        metadata=array("server_metrics/<name>", "float64", "R", "NaN where no upload arrived")
    )
    pair_rounds: np.ndarray = field(
        metadata=array("pairs/rounds", "int64", "P", "rounds, from 1, whose pairs are kept as pictures")
    )
    pair_labels: np.ndarray = field(metadata=array("pairs/labels", "int64", "P M", "-1 where a round had fewer pairs"))
    pair_images: np.ndarray = field(metadata=array("pairs/images", "uint8", "P M 3 size size"))
    centroids: np.ndarray = field(metadata=array(
        "pairs/centroids", "float32", "C H", "class centroids after the last round; [0, 0] without pairs", history=False,
    ))  # fmt: skip

    @property
    def clients(self) -> int:
        return int(self.test_accuracy.shape[1])

    def metrics(self) -> dict[str, np.ndarray]:
        """Every number of every round, in columns: round, client (-1: not of a single client), metric, value."""
        return metrics.columns(self)

    def frame(self) -> Any:
        """`metrics` as a pandas DataFrame. UserError without pandas."""
        return metrics.frame(self)


RUN: dict[str, RunArray] = {one.name: one.metadata["array"] for one in fields(Run) if "array" in one.metadata}
BLOBS = (  # the other arrays of a run, each a safetensors file
    RunArray(
        "clients/<000>", "uint8", ("bytes",),
        "a safetensors file with that client's weights; client numbers have at least three digits, and clients that never "
        "trained may have none", optional=True,
    ),
    RunArray(
        "checkpoint", "uint8", ("bytes",),
        "a safetensors file with the rest of the state, from which the run can be resumed", optional=True,
    ),
    RunArray(
        "selected/<array>", "uint8", ("bytes",),
        "`clients/<000>` and `checkpoint` likewise, after the round that is best on validation, without the server's state",
        optional=True,
    ),
)  # fmt: skip


def client_path(number: int) -> str:
    """Where a client's weights are among the arrays of a run, and its tensors in a checkpoint."""
    return f"clients/{number:03d}"


def read(artifact: Artifact) -> Any:
    """The content of an artifact of any kind: Data, Latents, Run or Report; UserError if it does not follow its schema."""
    return READERS[artifact.kind, artifact.attributes["schema"]](artifact)


def read_data(artifact: Artifact) -> Data:
    counts, names = read_counts(artifact)
    sizes = dict(zip(("clients", "classes"), counts.shape, strict=True))
    splits = {split: _split(artifact, split, sizes) for split in SPLITS}
    return Data(artifact, **splits, counts=counts, class_names=names)


def read_counts(artifact: Artifact) -> tuple[np.ndarray, list[str]]:
    """The counts of a data artifact, int64 [clients, classes], and its class names, without reading its images."""
    counts = _typed(artifact, "counts", "int64", ("clients", "classes"), {})
    names = _attribute(artifact, "class_names", list)
    if len(names) != counts.shape[1]:
        raise UserError(f"{artifact.path} names {len(names)} classes, but counts {counts.shape[1]}; make it again.")
    return counts, [str(name) for name in names]


def _split(artifact: Artifact, split: str, sizes: dict[str, int]) -> Split:
    images = _typed(artifact, f"{split}/images", "uint8", (split, "channels", "height", "width"), sizes)
    labels = _typed(artifact, f"{split}/labels", "int64", (split,), sizes)
    offsets = _typed(artifact, f"{split}/offsets", "int64", ("clients + 1",), sizes)
    clients, classes = sizes["clients"], sizes["classes"]
    if len(offsets) != clients + 1 or offsets[0] != 0 or offsets[-1] != len(labels) or (np.diff(offsets) < 0).any():
        raise UserError(f"{artifact.path}: {split}'s offsets do not divide its images; make it again.")
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise UserError(f"{artifact.path}: {split} has a label outside 0..{classes - 1}; make it again.")
    return Split(images, labels, offsets)


@understood("A data artifact")
def census(artifact: Artifact) -> DataSpec:
    """Classes, image shape and sizes of a data artifact, without reading its images."""
    sizes = {split: np.diff(artifact.array(f"{split}/offsets")).tolist() for split in SPLITS}
    _, channels, height, width = artifact.shape("train/images")
    return DataSpec(artifact.array("counts").shape[1], (channels, height, width), sizes)


@understood("A data artifact")
def read_share(
    artifact: Artifact, client: int, splits: Iterable[str] = SPLITS
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """One client's images uint8 [n, C, H, W] and labels int64 [n] by split, without decoding any other client's rows."""
    shares = {}
    for split in splits:
        start, stop = artifact.array(f"{split}/offsets")[client : client + 2].tolist()
        rows = slice(start, stop)
        shares[split] = artifact.array(f"{split}/images", rows), artifact.array(f"{split}/labels", rows)
    return shares


def read_latents(artifact: Artifact) -> Latents:
    sizes = {"3": 3}
    latents = _typed(artifact, "latents", "float32", ("n", "H"), sizes)
    images = _typed(artifact, "images", "uint8", ("n", "3", "size", "size"), sizes)
    if not np.isfinite(latents).all():
        raise UserError(f"{artifact.path}: a latent is not finite; make it again.")
    embeddings = {name: artifact.array(f"embeddings/{name}") for name in artifact.names("embeddings")}
    return Latents(artifact, latents, images, descriptor(artifact), embeddings)


def descriptor(artifact: Artifact) -> dict[str, Any]:
    """What rendered a latents artifact, without reading its images."""
    found = _attribute(artifact, "generator", dict)
    if not isinstance(found.get("family"), str):
        raise UserError(f"{artifact.path} does not name its generator's family; make it again.")
    return found


FACTS: dict[str, tuple[type, ...]] = {  # what every run records about itself
    "algorithm": (str,), "hyper": (dict,), "data": (str,), "latents": (str, type(None)), "models": (str,),
    "architectures": (list,), "parameters": (list,), "device": (str,),
}  # fmt: skip


def read_facts(artifact: Artifact) -> dict[str, Any]:
    """What a run records about itself, without reading its arrays."""
    facts = _attribute(artifact, "facts", dict)
    wrong = [name for name, wanted in FACTS.items() if not isinstance(facts.get(name, ...), wanted)]
    if wrong or type(artifact.attributes["seed"]) is not int:
        raise UserError(f"{artifact.path} does not record its {(wrong or ['seed'])[0]}; make it again.")
    return facts


def read_run(artifact: Artifact) -> Run:
    paths, sizes = list(artifact.arrays()), {"1": 1, "3": 3}
    values: dict[str, Any] = {}
    for name, part in RUN.items():
        found = {path: _typed(artifact, path, part.dtype, part.axes, sizes) for path in part.among(paths)}
        if "<" in part.path:
            values[name] = {path.removeprefix(part.prefix): array for path, array in found.items()}
        elif found:
            values[name] = found[part.path]
        elif part.optional:
            values[name] = part.filled(sizes)
        else:
            values[name] = artifact.array(part.path)  # raises
    if not all(sizes[axis] for axis in "ERK"):
        raise UserError(f"{artifact.path} holds no rounds, evaluations or clients; make it again.")
    return Run(artifact, read_facts(artifact), **values)


@dataclass(frozen=True, repr=False)
class Report(Content):
    rows: list[dict[str, Any]]  # as `fedktl report --format json` prints them
    page: str  # the HTML page


def read_report(artifact: Artifact) -> Report:
    page = _typed(artifact, "page", "uint8", ("bytes",), {})
    return Report(artifact, _attribute(artifact, "rows", list), page.tobytes().decode(errors="replace"))


READERS: dict[tuple[str, int], Callable[[Artifact], Any]] = {
    ("data", 1): read_data, ("latents", 1): read_latents, ("run", 1): read_run, ("report", 1): read_report,
}  # fmt: skip


def _typed(artifact: Artifact, name: str, dtype: str, axes: tuple[str, ...], sizes: dict[str, int]) -> np.ndarray:
    """An array of that type whose axes fit `sizes`, the lengths of the axes seen so far."""
    values = artifact.array(name)
    fits = values.dtype == dtype and values.ndim == len(axes)
    if not fits or any(sizes.setdefault(axis, n) != n for axis, n in zip(axes, values.shape, strict=True)):
        raise UserError(
            f"{artifact.path}: '{name}' is {values.dtype} {values.shape}, which is not {dtype} [{', '.join(axes)}] "
            "with the axes of the other arrays; make the artifact again."
        )
    return values


def _attribute(artifact: Artifact, name: str, kind: type[T]) -> T:
    value = artifact.attributes.get(name)
    if not isinstance(value, kind):
        raise UserError(f"{artifact.path} has no attribute '{name}' that is a {kind.__name__}; make it again.")
    return value
