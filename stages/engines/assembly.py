"""From a RunSpec (artifacts, settings, seed) to a federation ready for its first round."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import torch

from stages import devices, memory
from stages.algorithms.contract import ClientState, PairSource, Task
from stages.artifacts import schemas
from stages.artifacts.store import Artifact
from stages.devices import check_room, home, set_up
from stages.devices import device as placed
from stages.engines.federation import ClientData, Federation, State
from stages.engines.growing import free_memory
from stages.engines.plan import RemoteData, RunSpec, data_spec_of
from stages.engines.shelf import Shelf
from stages.errors import UserError
from stages.generators import registry
from stages.generators.pairs import BankPairs, LivePairs
from stages.models import pretrained, split
from stages.randomness import Rng

COPIES = 3  # of all models in memory at a time: the models, those of the selected round, and a checkpoint being written


def assemble(spec: RunSpec, images: bool = True, alike: bool = False) -> tuple[Federation, State]:
    """Build every client's model, read the artifacts, put everything on the device; images are read only with `images`.

    If `alike`, clients of one architecture share one model: enough to see what a run would be. If the clients are on other
    machines, their states are not kept here. Raises UserError for data that can't be trained on, for a model that does not
    fit the data, and for a bank that is too small.
    """
    settings, device, rng = spec.settings, placed(spec.settings.device), Rng(spec.seed)
    set_up(settings)
    data_spec = data_spec_of(spec.data)
    check_shares(data_spec, spec)
    pairs = pair_source(spec, data_spec, device)
    task = task_of(spec, data_spec, pairs.latent_dim if pairs else 0, device)
    shelf = not alike and on_disk(spec, data_spec, device)
    built = models(spec, data_spec, alike or shelf)
    images_of = sum(sum(sizes) for sizes in data_spec.sizes.values())
    check_room(device, images_of * math.prod(data_spec.shape), built, settings)
    waiting = torch.device("cpu") if shelf else home(settings.offload, built, device)
    states = [ClientState(model.to(waiting)) for model in built]
    spec.algorithm.check(spec.hyper, task, built)
    server, shared = spec.algorithm.init(spec.hyper, task, rng.at("init"))
    sizes = {name: torch.tensor(data_spec.sizes[name]) for name in schemas.SPLITS}
    shares: dict[str, list[ClientData]] = {}
    if images and isinstance(spec.data, Artifact):
        data = schemas.read_data(spec.data)
        shares = {name: shares_of(getattr(data, name), data.clients, device) for name in schemas.SPLITS}
    memory.give_back()
    federation = Federation(
        spec.algorithm, spec.hyper, shared, settings, rng, device, data_spec.classes, sizes, shares, pairs
    )
    if shelf:
        return federation, State([], server, Shelf(built, lambda client: model_of(spec, data_spec, client), device))
    return federation, State([] if isinstance(spec.data, RemoteData) else states, server)


def on_disk(spec: RunSpec, data_spec: schemas.DataSpec, device: torch.device) -> bool:
    """Whether clients' models wait on disk between their turns: if asked for, or if host memory has no room for them."""
    settings = spec.settings
    other = "pretrained" if settings.pretrained else "engine=flower" if settings.engine == "flower" else ""
    if settings.offload == "disk" and other:
        raise UserError(f"`offload=disk` does not go with `{other}`; leave out one of them.")
    if settings.offload != "auto" or device.type != "cpu" or other:
        return settings.offload == "disk"
    names = Counter(split.architectures(settings.models, data_spec.clients))
    shape, classes, width = data_spec.shape, data_spec.classes, settings.feature_dim
    try:
        need = sum(
            devices.size([split.meta_model(name, shape, classes, width)]) * count for name, count in names.items()
        )
    except UserError:  # a model that does not fit is reported when the models are built
        return False
    return COPIES * need > free_memory()


def task_of(spec: RunSpec, data_spec: schemas.DataSpec, latent_dim: int, device: torch.device) -> Task:
    settings = spec.settings
    return Task(
        data_spec.clients, data_spec.classes, settings.feature_dim, latent_dim, settings.lr, settings.batch_size, device,
        data_spec.shape, settings.channels_last,
    )  # fmt: skip


def shares_of(part: schemas.Split, clients: int, device: torch.device) -> list[ClientData]:
    images, labels = torch.from_numpy(part.images).to(device), torch.from_numpy(part.labels).to(device)
    return [ClientData(images[part.rows(client)], labels[part.rows(client)]) for client in range(clients)]


def check_shares(data_spec: schemas.DataSpec, spec: RunSpec) -> None:
    settings = spec.settings
    least = settings.batch_size if settings.drop_last else 2
    for client, size in enumerate(data_spec.sizes["train"]):
        if size < least:
            why = "less than one batch, which `drop_last` skips" if settings.drop_last else "but training needs two"
            raise UserError(
                f"Client {client} of {spec.data.ref} has {size} training images, {why}; prepare with a larger `min_samples`."
            )
    if not sum(data_spec.sizes["test"]):
        raise UserError(f"{spec.data.ref} has no test images; prepare it with a test fraction.")
    if settings.keep == "selected" and not sum(data_spec.sizes["validation"]):
        raise UserError(
            f"{spec.data.ref} has no validation images to select a round on; prepare it with a `validation_fraction`, or "
            "leave out `keep=selected`."
        )


def models(spec: RunSpec, data_spec: schemas.DataSpec, alike: bool = False) -> list[split.SplitModel]:
    """Every client's freshly initialised model, or one per architecture; each is first tried on two images."""
    built, tried = [], dict[str, split.SplitModel]()
    names = split.architectures(spec.settings.models, data_spec.clients)
    weights = pretrained.read(spec.settings.pretrained, names)
    for client, name in enumerate(names):
        try:
            model = tried[name] if alike and name in tried else model_of(spec, data_spec, client, weights)
            if name not in tried:
                split.shapes(model, data_spec.shape)
                if spec.settings.batch_size == 1:
                    split.check_single(model, data_spec.shape)
                tried[name] = model
        except UserError as error:
            raise UserError(f"Client {client}'s model '{name}' does not fit: {error}") from error
        built.append(model)
    return built


def model_of(
    spec: RunSpec, data_spec: schemas.DataSpec, client: int, weights: Mapping[str, pretrained.Weights] | None = None
) -> split.SplitModel:
    """A client's freshly initialised model, the same on every machine."""
    name = split.architectures(spec.settings.models, data_spec.clients)[client]
    same = spec.algorithm.same_start or spec.settings.initial_weights == "same"
    seed = spec.seed if same else Rng(spec.seed).seed("weights", client)
    model = split.build(name, data_spec.shape, data_spec.classes, spec.settings.feature_dim, seed, weights)
    model.bf16 = spec.settings.precision == "bf16"
    return split.laid_out(model, spec.settings.channels_last, placed(spec.settings.device))


def pair_source(spec: RunSpec, data_spec: schemas.DataSpec, device: torch.device) -> PairSource | None:
    """The server's pairs from the latents artifact, for an algorithm that uses them."""
    if spec.latents is None or not spec.hyper.needs_latents():
        return None
    size, bank = data_spec.shape[-1], schemas.read_latents(spec.latents)
    if spec.settings.pairs == "bank" and (spec.settings.generator or spec.settings.weights):
        raise UserError("`generator` and `weights` are for live pairs; add `pairs=live`, or leave them out.")
    if spec.settings.pairs == "live":
        if spec.settings.pairs_per_class > 1:
            raise UserError("Live pairs are one per class, its rendered centroid; for more use `pairs=bank`.")
        embeddings = {name: torch.from_numpy(values) for name, values in bank.embeddings.items()}
        generator = registry.again(
            spec.latents.settings, bank.generator, embeddings, spec.settings.generator, spec.settings.weights, device
        )
        if generator.latent_dim != bank.latents.shape[1]:
            raise UserError(
                f"The generator of {spec.latents.ref} takes latents with {generator.latent_dim} numbers, but those of the bank have "
                f"{bank.latents.shape[1]}; generate the bank again."
            )
        settings = spec.settings
        return LivePairs(
            generator, size, device, settings.pair_pixels == "floats", settings.pair_resizing == "antialias"
        )
    latents, images = (torch.from_numpy(values).to(device) for values in (bank.latents, bank.images))
    return BankPairs(latents, images, size, data_spec.classes, spec.settings.pairs_per_class)
