"""From a plan (artifacts, settings, seed) to a federation ready for its first round."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from stages import memory
from stages.algorithms.contract import ClientState, PairSource, Task
from stages.artifacts import kinds
from stages.artifacts.store import Artifact
from stages.devices import check_room, home, set_up
from stages.devices import device as placed
from stages.engines.federation import Federation, Share, State
from stages.engines.plan import Elsewhere, Plan, census_of
from stages.errors import UserError
from stages.generators import registry
from stages.generators.pairs import BankPairs, LivePairs
from stages.models import pretrained, split
from stages.randomness import Rng


def assemble(plan: Plan, images: bool = True) -> tuple[Federation, State]:
    """Build every client's model, read the artifacts, put everything on the device; without `images` none is read.

    A server whose clients are elsewhere keeps no state of theirs. Raises UserError for data that can't be trained on,
    a model that does not fit, a bank too small.
    """
    settings, device, rng = plan.settings, placed(plan.settings.device), Rng(plan.seed)
    set_up(settings)
    census = census_of(plan.data)
    check_shares(census, plan)
    pairs = pair_source(plan, census, device)
    task = task_of(plan, census, pairs.latent_dim if pairs else 0, device)
    built = models(plan, census)
    images_of = sum(sum(sizes) for sizes in census.sizes.values())
    check_room(device, images_of * math.prod(census.shape), built, settings)
    waiting = home(settings.offload, built, device)
    states = [ClientState(model.to(waiting)) for model in built]
    plan.algorithm.check(plan.hyper, task, [state.model for state in states])
    server, shared = plan.algorithm.init(plan.hyper, task, rng.at("init"))
    sizes = {name: torch.tensor(census.sizes[name]) for name in kinds.SPLITS}
    shares: dict[str, list[Share]] = {}
    if images and isinstance(plan.data, Artifact):
        data = kinds.read(plan.data)
        shares = {name: shares_of(getattr(data, name), data.clients, device) for name in kinds.SPLITS}
    memory.give_back()
    federation = Federation(
        plan.algorithm, plan.hyper, shared, settings, rng, device, census.classes, sizes, shares, pairs
    )
    return federation, State([] if isinstance(plan.data, Elsewhere) else states, server)


def task_of(plan: Plan, census: kinds.Census, latent_dim: int, device: torch.device) -> Task:
    settings = plan.settings
    return Task(
        census.clients, census.classes, settings.feature_dim, latent_dim, settings.lr, settings.batch_size, device,
        census.shape,
    )  # fmt: skip


def shares_of(part: kinds.Split, clients: int, device: torch.device) -> list[Share]:
    images, labels = torch.from_numpy(part.images).to(device), torch.from_numpy(part.labels).to(device)
    return [Share(images[part.rows(client)], labels[part.rows(client)]) for client in range(clients)]


def check_shares(census: kinds.Census, plan: Plan) -> None:
    settings = plan.settings
    least = settings.batch_size if settings.drop_last else 2
    for client, size in enumerate(census.sizes["train"]):
        if size < least:
            why = (
                "fewer than a batch, and drop-last leaves out the rest" if settings.drop_last else "training needs two"
            )
            raise UserError(
                f"Client {client} of {plan.data.ref} has {size} training images, {why}; prepare with a larger --min-samples."
            )
    if not sum(census.sizes["test"]):
        raise UserError(f"{plan.data.ref} has no test images; prepare it with a test fraction.")


def models(plan: Plan, census: kinds.Census) -> list[split.SplitModel]:
    """Every client's freshly initialised model; each architecture is tried on two images first."""
    built, tried = [], set()
    names = split.architectures(plan.settings.models, census.clients)
    weights = pretrained.read(plan.settings.pretrained, names)
    for client, name in enumerate(names):
        try:
            model = model_of(plan, census, client, weights)
            if name not in tried:
                split.shapes(model, census.shape)
                if plan.settings.batch_size == 1:
                    split.check_single(model, census.shape)
                tried.add(name)
        except UserError as error:
            raise UserError(f"Client {client}'s model '{name}' does not fit: {error}") from error
        built.append(model)
    return built


def model_of(
    plan: Plan, census: kinds.Census, client: int, weights: Mapping[str, pretrained.Weights] | None = None
) -> split.SplitModel:
    """A client's freshly initialised model, the same wherever it is built."""
    name = split.architectures(plan.settings.models, census.clients)[client]
    same = plan.settings.initial_weights == "same"
    seed = plan.seed if same else Rng(plan.seed).seed("weights", client)
    model = split.build(name, census.shape, census.classes, plan.settings.feature_dim, seed, weights)
    model.bf16 = plan.settings.precision == "bf16"
    return model.to(memory_format=torch.channels_last if plan.settings.channels_last else torch.contiguous_format)


def pair_source(plan: Plan, census: kinds.Census, device: torch.device) -> PairSource | None:
    """The server's pairs from the latents artifact, for an algorithm that wants them."""
    if plan.latents is None:
        return None
    size, bank = census.shape[-1], kinds.read(plan.latents)
    if plan.settings.pairs == "live":
        if plan.settings.pairs_per_class > 1:
            raise UserError("Live pairs are one a class, its centroid rendered; for more of them use --pairs bank.")
        embeddings = {name: torch.from_numpy(values) for name, values in bank.embeddings.items()}
        generator = registry.again(
            plan.latents.settings, bank.generator, embeddings, plan.settings.generator, plan.settings.weights, device
        )
        if generator.latent_dim != bank.latents.shape[1]:
            raise UserError(
                f"The generator of {plan.latents.ref} takes latents of {generator.latent_dim}, the bank holds "
                f"{bank.latents.shape[1]}; generate the bank again."
            )
        settings = plan.settings
        return LivePairs(
            generator, size, device, settings.pair_pixels == "floats", settings.pair_resizing == "antialias"
        )
    latents, images = (torch.from_numpy(values).to(device) for values in (bank.latents, bank.images))
    return BankPairs(latents, images, size, census.classes, plan.settings.pairs_per_class)
