"""The settings of every stage: one dataclass per stage, each field with default, range and meaning.

The command line, presets, the attributes of artifacts and the dry run all read these, so an option
is defined once. Standard library only: `fedktl --help` imports this module and nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.fields import LARGEST_SEED, MOST, WIDEST, CommandSettings, Settings, key, names, setting, several

__all__ = [
    "DECISIVE",
    "LARGEST_SEED",
    "MOST",
    "SOURCES",
    "WIDEST",
    "Generate",
    "Prepare",
    "Report",
    "Settings",
    "Train",
    "TrainGenerator",
    "gridded",
    "key",
    "names",
    "setting",
]

DATASETS = (
    "digits", "mnist", "fashion-mnist", "emnist", "svhn", "cifar10", "cifar100", "flowers102", "gtsrb",
    "country211", "stanford-cars", "tiny-imagenet", "folder", "npz", "pfllib",
)  # fmt: skip
IMAGE_RANGES = ("sound", "reference")
PARTITIONS = ("dirichlet", "pathological", "extended-dirichlet", "iid", "counts", "domains")


@dataclass(frozen=True)
class Prepare(CommandSettings):
    """Settings of `fedktl prepare`."""

    dataset: str = setting(
        "digits",
        "Where the images come from: a name, package.module:reader, or hf:FOLDER_OR_NAME.",
        panel="Images",
        choices=DATASETS,
        own=True,
    )
    source: str | None = setting(None, "Folder or file with the images already there.", panel="Images")
    download: bool = setting(False, "Let the reader download what is missing.", panel="Images")
    image_size: int = setting(32, "Side of the square images, in pixels.", panel="Images", low=8, high=1024)
    squeeze: bool = setting(
        False, "Squeeze images into the square, as PFLlib does, or crop them at the centre.", panel="Images", off="crop"
    )
    partition: str = setting(
        "dirichlet", "How the images are dealt to the clients.", panel="Partition", choices=PARTITIONS
    )
    clients: int = setting(20, "Number of clients.", panel="Partition", low=1, high=100_000)
    beta: float = setting(
        0.1, "Concentration of the Dirichlet partition; smaller is more skewed.", panel="Partition", above=0
    )
    classes_per_client: int = setting(
        2, "Classes each client holds (pathological, extended-dirichlet).", panel="Partition", low=1
    )
    class_holders: str = setting(
        "drawn", "Who holds a class (pathological): clients drawn evenly, or consecutive ones, which is PFLlib's rule.",
        panel="Partition", choices=("drawn", "consecutive"),
    )  # fmt: skip
    counts: str | None = setting(
        None, "A PFLlib config.json, or a clients x classes CSV, of label counts to draw.", panel="Partition"
    )
    min_samples: int = setting(40, "Fewest images a client may end up with.", panel="Partition", low=1)
    merge: bool = setting(
        True, "Merge the train and test sets before dealing, then cut each client's share.",
        panel="Splits", off="keep-splits",
    )  # fmt: skip
    test_fraction: float = setting(
        0.25, "Fraction of each client's images kept for testing.", panel="Splits", above=0, high=0.9
    )
    validation_fraction: float = setting(
        0.1, "Fraction of the training images kept to select rounds; 0 for none.", panel="Splits", low=0, high=0.9
    )
    few_shot: int = setting(
        0, "Keep only this many training images per client and class; 0 keeps all.", panel="Splits", low=0
    )
    seed: int = setting(0, "Seed of every random choice.", low=0, high=LARGEST_SEED)


@dataclass(frozen=True)
class Generate(CommandSettings):
    """Settings of `fedktl generate`."""

    generator: str = setting(
        "auto", "A generator family, or package.module:factory; auto: what `weights` holds, without them the built-in.",
        panel="Generator",
    )  # fmt: skip
    weights: str | None = setting(
        None, "An official snapshot (.pkl), a converted .safetensors, a diffusers folder, or a hub name.",
        panel="Generator",
    )  # fmt: skip
    precision: str = setting(
        "auto", "Number format the generator computes in; auto: fp32 on a CPU, on a GPU fp16 (StyleGAN) or bf16 (diffusion).",
        panel="Generator", choices=("auto", "fp32", "fp16", "bf16"),
    )  # fmt: skip
    truncation: float = setting(1.0, "Pull of w to its mean (StyleGAN); 1 is none.", panel="StyleGAN", low=0, high=2)
    class_id: int | None = setting(
        None, "One class for all (conditional StyleGAN); default: drawn at random.", panel="StyleGAN", low=0
    )
    image_range: str = setting(
        "sound", "Clamp and round once, or map to bytes as the reference does (StyleGAN).", panel="StyleGAN",
        choices=IMAGE_RANGES,
    )  # fmt: skip
    prompt: str | None = setting(None, "What to draw (text to image).", panel="Diffusion", empty=True)
    negative_prompt: str | None = setting(None, "What not to draw (text to image).", panel="Diffusion", empty=True)
    steps: int = setting(50, "Steps of the scheduler.", panel="Diffusion", low=1, high=1000)
    guidance: float = setting(7.5, "Weight of the prompt (text to image).", panel="Diffusion", low=0, high=1000)
    scheduler: str | None = setting(None, "Scheduler; default: the pipeline's own.", panel="Diffusion")
    samples: int = setting(2000, "Latents in the bank.", panel="Bank", low=1, high=10_000_000)
    image_size: int | None = setting(
        32, "Side of the images in pixels, or native: as the generator renders them.", panel="Bank", low=8, high=1024,
        none="native",
    )  # fmt: skip
    from_latents: str | None = setting(
        None, "Render these latents instead: a .npy or .npz file, or a run's class centroids (RUN[@version]).",
        panel="Bank",
    )  # fmt: skip
    batch_size: int = setting(64, "Images rendered at once.", panel="Speed", low=1, high=10_000)
    device: str = setting("auto", "cpu, cuda, cuda:1, or auto.", panel="Speed")
    seed: int = setting(0, "Seed of every random choice.", low=0, high=LARGEST_SEED)


@dataclass(frozen=True)
class TrainGenerator(CommandSettings):
    """Settings of `fedktl generator train`."""

    steps: int = setting(6000, "Steps of training; a larger number than before continues from the checkpoint.", low=1)
    batch_size: int = setting(64, "Images per step.", low=2, high=10_000)
    precision: str = setting("fp32", "Number format of the convolutions.", choices=("fp32", "bf16"))
    discriminator_width: int = setting(
        64, "Channels of the discriminator's first layer: 64 suits a CPU, 128 a GPU.", low=1, high=1024
    )
    device: str = setting("auto", "cpu, cuda, cuda:1, or auto.")
    threads: int = setting(2, "CPU threads.", low=1, high=1024)
    seed: int = setting(0, "Seed of every random choice.", low=0, high=LARGEST_SEED)


@dataclass(frozen=True)
class Train(CommandSettings):
    """Settings of `fedktl train`."""

    algorithm: tuple[str, ...] = setting(
        ("fedktl",), "What to run: a name, or package.module:ALGORITHM; repeatable.", panel="What"
    )
    data: str | None = setting(None, "Data artifact; default: the newest.", panel="What")
    latents: str | None = setting(None, "Latents artifact; default: the newest.", panel="What")
    models: str = setting(
        "small", "Groups and architectures, separated by commas: names, timm:NAME, module:factory; +N adds a hidden layer to the head.",
        panel="What", commas=True,
    )  # fmt: skip
    pretrained: tuple[str, ...] = setting(
        (), "ARCHITECTURE=FILE: start from torchvision's or a run's exported weights, .pth or .safetensors; repeatable.",
        panel="What",
    )  # fmt: skip
    feature_dim: int = setting(512, "Width of every client's feature.", panel="What", low=1, high=WIDEST)
    rounds: int = setting(100, "Rounds of federation.", panel="Training", low=1, resumable=True)
    batch_size: int = setting(10, "Images per step of local training.", panel="Training", low=1)
    lr: float = setting(0.01, "Learning rate of the clients' SGD.", panel="Training", above=0)
    local_epochs: int = setting(1, "Passes over a client's data per round.", panel="Training", low=1)
    shuffle: bool = setting(True, "Draw a new order of the training images each epoch.", panel="Training")
    drop_last: bool = setting(
        False, "Leave out the last, smaller batch of an epoch.", panel="Training", off="keep-last"
    )
    initial_weights: str = setting(
        "independent", "Clients of one architecture start from the same weights, or each from its own.",
        panel="Training", choices=("independent", "same"),
    )  # fmt: skip
    join_ratio: float = setting(1.0, "Fraction of the clients that join a round.", panel="Clients", above=0, high=1)
    random_join: bool = setting(
        False, "Draw the fraction anew each round, between `join_ratio` and 1.", panel="Clients"
    )
    drop_rate: float = setting(
        0.0, "Fraction of the joined clients whose upload is lost.", panel="Clients", low=0, high=0.99
    )
    slow_rate: float = setting(0.0, "Fraction of the clients that are slow.", panel="Clients", low=0, high=1)
    slow_seconds: float = setting(
        0.0, "Simulated seconds by which a slow client is late in a round: reported, never waited for.",
        panel="Clients", low=0,
    )  # fmt: skip
    wire: str = setting(
        "fp32", "Messages carry float32 numbers, or round them to half precision.",
        panel="Clients", choices=("fp32", "fp16"),
    )  # fmt: skip
    pairs: str = setting(
        "bank", "Image-latent pairs: matched from the bank, or rendered every round.",
        panel="Pairs", choices=("bank", "live"),
    )  # fmt: skip
    pair_pixels: str = setting(
        "bytes", "Live pairs' pictures as bytes, or as the numbers that the generator computes.",
        panel="Pairs", choices=("bytes", "floats"),
    )  # fmt: skip
    pair_resizing: str = setting(
        "antialias", "How live pairs' pictures come to the clients' size: antialiased, or bilinear between four pixels.",
        panel="Pairs", choices=("antialias", "bilinear"),
    )  # fmt: skip
    pairs_per_class: int = setting(1, "Pairs of each class from the bank; all are downloaded.", panel="Pairs", low=1)
    generator: str | None = setting(
        None, "Allow live pairs from this package.module:factory, the one that made the bank.",
        panel="Pairs", affects=False, resumable=False,
    )  # fmt: skip
    weights: str | None = setting(
        None, "Where the weights of the bank's generator are now, for live pairs; default: where they were then.",
        panel="Pairs", affects=False,
    )  # fmt: skip
    engine: str = setting(
        "local", "Clients in this process, or over Flower: simulated over Ray, or with `federation` real ones.",
        panel="Engine", choices=("local", "flower"), affects=False, resumable=False,
    )  # fmt: skip
    federation: str | None = setting(
        None, "HOST:PORT of the SuperLink on this machine (fedktl federation up), which has its clients' data.",
        panel="Engine", affects=False,
    )  # fmt: skip
    root_certificates: str | None = setting(
        None, "PEM file of the authority that signed the SuperLink's certificate; without it there is no TLS.",
        panel="Engine", affects=False,
    )  # fmt: skip
    ray_address: str | None = setting(
        None, "HOST:PORT of a Ray cluster, this machine included, that simulates the clients; default: this machine alone.",
        panel="Engine", affects=False,
    )  # fmt: skip
    client_cpus: float = setting(
        1.0, "CPU cores of a simulated client.", panel="Engine", above=0, high=1024, affects=False
    )
    client_gpus: float = setting(
        0.0, "GPUs of a simulated client; 0.25 puts four on one.", panel="Engine", low=0, high=1024, affects=False
    )
    round_timeout: float = setting(
        600.0, "Seconds after which a round continues without the clients that have not answered.", panel="Engine",
        above=0, affects=False,
    )  # fmt: skip
    min_clients: int = setting(1, "Clients that must answer, else the run stops.", panel="Engine", low=1, affects=False)
    eval_every: int = setting(1, "Rounds between evaluations.", panel="Rounds", low=1)
    eval_clients: str = setting(
        "all", "Evaluate all clients, or only those that joined the round (before the first, those that will join it).",
        panel="Rounds", choices=("all", "joined"),
    )  # fmt: skip
    patience: int = setting(
        0, "Stop after this many evaluations without a better accuracy (on validation, else on test); 0: never.",
        panel="Rounds", low=0, resumable=True,
    )  # fmt: skip
    checkpoint_every: int | None = setting(
        None, "Rounds between checkpoints; default: so often that they take 3% of the time, and a kill costs at most five minutes "
        "or a round.",
        panel="Rounds", low=1, affects=False,
    )  # fmt: skip
    keep: str = setting(
        "both", "The weights to keep: of the last round, of the one selected on validation images, or both if they differ.",
        panel="Rounds", choices=("last", "selected", "both"), affects=False,
    )  # fmt: skip
    device: str = setting(
        "auto", "cpu, cuda, cuda:1, or auto; several, separated by commas, share the runs, a process each.",
        panel="Speed", affects=False,
    )  # fmt: skip
    jobs: int = setting(
        1, "Runs side by side, as processes among which the cores are divided.", panel="Speed", low=1, high=256,
        affects=False,
    )  # fmt: skip
    threads: int = setting(
        1, "CPU threads of one run. The result depends on their number; more pay off for large models only.",
        panel="Speed", low=1, high=1024,
    )  # fmt: skip
    precision: str = setting(
        "fp32", "Number format the clients compute in: fp32; tf32 for matrix products on a GPU; bf16 in the models' bases.",
        panel="Speed", choices=("fp32", "tf32", "bf16"),
    )  # fmt: skip
    channels_last: bool = setting(
        True, "Convolve with the channels last in memory: a sixth to a third faster, with different rounding. Not on a GPU "
        "for networks with depthwise convolutions.",
        panel="Speed", off="channels-first",
    )  # fmt: skip
    deterministic: bool = setting(
        False, "On a GPU, the same result in every run, at some cost in speed; a CPU's is always the same.",
        panel="Speed",
    )  # fmt: skip
    in_flight: int = setting(
        8, "Clients that train at the same time on a GPU; the result does not depend on their number.", panel="Speed",
        low=1, high=64, affects=False,
    )  # fmt: skip
    offload: str = setting(
        "auto", "Keep client models between turns in the memory of a GPU (off), of its host (on), or on disk; auto: where they fit.",
        panel="Speed", choices=("auto", "on", "off", "disk"), affects=False,
    )  # fmt: skip
    workers: int | None = setting(
        None, "Processes that train clients side by side on the CPU; default: one a core, if a run lasts long enough. "
        "The result does not depend on their number.",
        panel="Speed", low=1, high=256, affects=False,
    )  # fmt: skip
    track: tuple[str, ...] = setting(
        (), "Show the rounds in tensorboard, mlflow or wandb, or in one of them at a place of its own, as in "
        "tensorboard=FOLDER; repeatable.", panel="Rounds", affects=False,
    )  # fmt: skip
    seeds: tuple[int, ...] = setting(
        (0,),
        "Seeds, one run each: separated by commas, or ranges as in 0-4.",
        low=0,
        high=LARGEST_SEED,
        also=("--seed",),
    )


SOURCES = ("algorithm", "data", "latents", "seeds")  # settings that a run records better, by seals and a seed
DECISIVE = tuple(name for name in names(Train, affects=True, resumable=False) if name not in (*SOURCES, "pretrained"))


def gridded(*layers: Mapping[str, Any]) -> tuple[Train, dict[str, list[Any]]]:
    """Settings from layers as `Train.make` takes them, and separately the decisive ones that have several values."""
    given = {name.replace("-", "_"): value for layer in layers for name, value in layer.items()}
    values = several(Train, {name: value for name, value in given.items() if name in DECISIVE})
    grid = {name: each for name, each in values.items() if len(each) > 1}
    return Train.make({name: value for name, value in given.items() if name not in grid}), grid


@dataclass(frozen=True)
class Report(CommandSettings):
    """Settings of `fedktl report`."""

    runs: tuple[str, ...] = setting((), "Runs to report; default: all of the newest data artifact.")
    columns: tuple[str, ...] = setting(
        (), "Columns of the table of results, on the page as well; default: all that fit."
    )
    unfinished: bool = setting(False, "Draw unfinished runs as well, as far as their last checkpoint goes.")
