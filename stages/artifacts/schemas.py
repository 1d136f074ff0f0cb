"""What each kind of artifact holds, as typed readers. One table maps (kind, schema version) to its reader."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from stages.artifacts.store import Artifact
from stages.errors import UserError
from stages.foreign import understood

SPLITS = ("train", "validation", "test")
T = TypeVar("T")


@dataclass(frozen=True)
class Split:
    """One split of every client's images, sorted by client."""

    images: np.ndarray  # uint8 [n, channels, height, width]
    labels: np.ndarray  # int64 [n]
    offsets: np.ndarray  # int64 [clients + 1]; client k owns rows offsets[k]:offsets[k + 1]

    def rows(self, client: int) -> slice:
        return slice(int(self.offsets[client]), int(self.offsets[client + 1]))


@dataclass(frozen=True)
class Data:
    artifact: Artifact
    train: Split
    validation: Split
    test: Split
    counts: np.ndarray  # int64 [clients, classes], all splits together
    class_names: list[str]

    @property
    def clients(self) -> int:
        return self.counts.shape[0]

    @property
    def classes(self) -> int:
        return self.counts.shape[1]


@dataclass(frozen=True)
class DataSpec:
    """What is known about data without reading its images."""

    classes: int
    shape: tuple[int, int, int]  # of an image: channels, height, width
    sizes: dict[str, list[int]]  # images of each client, by split

    @property
    def clients(self) -> int:
        return len(self.sizes["train"])


@dataclass(frozen=True)
class Latents:
    artifact: Artifact
    latents: np.ndarray  # float32 [n, H]
    images: np.ndarray  # uint8 [n, 3, size, size]
    generator: dict[str, Any]  # the descriptor: what rendered them
    embeddings: dict[str, np.ndarray] = field(default_factory=dict)  # of a prompt, float32, by name


@dataclass(frozen=True)
class Run:
    """R rounds were run, E of them evaluated (round 0, the untrained models, always), over K clients."""

    artifact: Artifact
    evaluated: np.ndarray  # int64 [E], rounds done when evaluated
    test_accuracy: np.ndarray  # float64 [E, K], in [0, 1]
    validation_accuracy: np.ndarray  # float64 [E, K]; NaN without a validation split
    test_samples: np.ndarray  # int64 [K], weights of the clients in a mean accuracy, likewise the next
    validation_samples: np.ndarray
    test_auc: np.ndarray  # float64 [E, K], micro-averaged, in [0, 1]; NaN where it was not measured
    joined: np.ndarray  # bool [R, K]
    uploaded: np.ndarray  # bool [R, K]
    upload_floats: np.ndarray  # int64 [R, K], likewise the next three
    upload_bytes: np.ndarray
    download_floats: np.ndarray
    download_bytes: np.ndarray
    seconds: dict[str, np.ndarray]  # phase -> float64 [R]
    peak_memory: np.ndarray  # int64 [R], bytes
    simulated_seconds: np.ndarray  # float64 [R, K], by which a slow client is late; zeros where none was simulated
    client_metrics: dict[str, np.ndarray]  # name -> float64 [R, K]; NaN where a client did not take part
    server_metrics: dict[str, np.ndarray]  # name -> float64 [R]; NaN where no upload arrived
    pair_rounds: np.ndarray  # int64 [P], rounds whose pairs are kept as pictures
    pair_labels: np.ndarray  # int64 [P, M]; -1 where that round had fewer pairs
    pair_images: np.ndarray  # uint8 [P, M, 3, size, size]
    centroids: np.ndarray  # float32 [C, H], class centroids after the last round; [0, 0] if there are none
    missing: np.ndarray  # int64 [X, 3]: round (from 1), client, reason (1 absent, 2 late, 3 failed, 4 refused)
    wire: dict[str, np.ndarray]  # upload_bytes, download_bytes, int64 [R, K], as they left; none within a process
    facts: dict[str, Any] = field(default_factory=dict)  # algorithm, data, latents, models, parameters per client, ...

    @property
    def clients(self) -> int:
        return self.test_accuracy.shape[1]


def read(artifact: Artifact) -> Any:
    """The typed content of an artifact; UserError if it does not follow its schema."""
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
def read_share(artifact: Artifact, client: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """One client's images uint8 [n, C, H, W] and labels int64 [n] by split, without decoding any other client's rows."""
    shares = {}
    for split in SPLITS:
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


ROUNDS = {  # arrays of a run below `rounds`: dtype and axes
    "evaluated": ("int64", "E"),
    "test_accuracy": ("float64", "EK"),
    "validation_accuracy": ("float64", "EK"),
    "test_samples": ("int64", "K"),
    "validation_samples": ("int64", "K"),
    "joined": ("bool", "RK"),
    "uploaded": ("bool", "RK"),
    "upload_floats": ("int64", "RK"),
    "upload_bytes": ("int64", "RK"),
    "download_floats": ("int64", "RK"),
    "download_bytes": ("int64", "RK"),
    "peak_memory": ("int64", "R"),
}


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
    sizes = {"3": 3}

    def array(name: str, dtype: str, axes: Iterable[str]) -> np.ndarray:
        return _typed(artifact, name, dtype, tuple(axes), sizes)

    def arrays(group: str, axes: str) -> dict[str, np.ndarray]:
        return {name: array(f"{group}/{name}", "float64", axes) for name in artifact.names(group)}

    rounds = {name: array(f"rounds/{name}", *form) for name, form in ROUNDS.items()}
    if not all(sizes[axis] for axis in "ERK"):
        raise UserError(f"{artifact.path} holds no rounds, evaluations or clients; make it again.")
    auc = "test_auc" in artifact.names("rounds")
    late = "simulated_seconds" in artifact.names("rounds")
    faults = "missing" in artifact.names("faults")
    wire = [name for name in artifact.names("rounds") if name.startswith("wire_")]
    return Run(
        artifact, **rounds,
        test_auc=array("rounds/test_auc", "float64", "EK") if auc else np.nan * rounds["test_accuracy"],
        simulated_seconds=array("rounds/simulated_seconds", "float64", "RK") if late else 0.0 * rounds["joined"],
        seconds=arrays("seconds", "R"), client_metrics=arrays("client_metrics", "RK"),
        server_metrics=arrays("server_metrics", "R"), pair_rounds=array("pairs/rounds", "int64", "P"),
        pair_labels=array("pairs/labels", "int64", "PM"),
        pair_images=array("pairs/images", "uint8", ("P", "M", "3", "size", "size")),
        centroids=array("pairs/centroids", "float32", "CH"),
        missing=array("faults/missing", "int64", "X3") if faults else np.zeros((0, 3), np.int64),
        wire={name.removeprefix("wire_"): array(f"rounds/{name}", "int64", "RK") for name in wire}, facts=read_facts(artifact),
    )  # fmt: skip


@dataclass(frozen=True)
class Report:
    artifact: Artifact
    rows: list[dict[str, Any]]  # as `fedktl report --format json` prints them
    page: str  # the HTML page


def read_report(artifact: Artifact) -> Report:
    page = _typed(artifact, "page", "uint8", ("bytes",), {})
    return Report(artifact, _attribute(artifact, "rows", list), page.tobytes().decode(errors="replace"))


READERS: dict[tuple[str, int], Callable[[Artifact], Any]] = {
    ("data", 1): read_data,
    ("latents", 1): read_latents,
    ("run", 1): read_run,
    ("report", 1): read_report,
}


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
