"""From a plan (artifacts, settings, seed) to a federation ready for its first round."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from stages.algorithms.contract import Algorithm, ClientState, PairSource, Task
from stages.artifacts import kinds
from stages.artifacts.store import Artifact
from stages.devices import device as placed
from stages.devices import home, set_arithmetic
from stages.engines.federation import Federation, Share, State
from stages.engines.local import InProcess
from stages.engines.rounds import Fleet
from stages.engines.workers import Workers
from stages.errors import UserError
from stages.generators import registry
from stages.generators.pairs import BankPairs, LivePairs
from stages.models import pretrained, split
from stages.randomness import Rng
from stages.settings import Settings, Train


@dataclass(frozen=True)
class Plan:
    """One run: one algorithm, one seed."""

    algorithm: Algorithm
    hyper: Settings
    settings: Train
    seed: int
    data: Artifact
    latents: Artifact | None

    @property
    def sources(self) -> dict[str, Artifact]:
        return {"data": self.data} | ({"latents": self.latents} if self.latents else {})

    def facts(self) -> dict[str, Any]:
        """What is needed to make this plan again, JSON-able."""
        own = replace(self.settings, algorithm=(self.algorithm.name,), seeds=(self.seed,))
        return {
            "algorithm": self.algorithm.name, "hyper": self.hyper.as_dict(), "settings": own.as_dict(),
            "seed": self.seed, "made_from": {role: source.identity for role, source in self.sources.items()},
        }  # fmt: skip


def assemble(plan: Plan) -> tuple[Federation, State]:
    """Read the artifacts, build every client's model, put everything on the device.

    Raises UserError for data that can't be trained on, a model that does not fit, a bank too small.
    """
    settings, device, rng = plan.settings, placed(plan.settings.device), Rng(plan.seed)
    torch.set_num_threads(settings.threads)
    set_arithmetic(settings.precision, settings.deterministic)
    data = kinds.read(plan.data)
    check_shares(data, settings)
    pairs = pair_source(plan, data, device)
    task = Task(
        data.clients, data.classes, settings.feature_dim, pairs.latent_dim if pairs else 0, settings.lr,
        settings.batch_size, device, data.train.images.shape[1:],
    )  # fmt: skip
    built = models(plan, data)
    waiting = home(settings.offload, built, device)
    order = torch.channels_last if settings.channels_last else torch.contiguous_format
    clients = [ClientState(model.to(waiting).to(memory_format=order)) for model in built]
    plan.algorithm.check(plan.hyper, task, [client.model for client in clients])
    server, shared = plan.algorithm.init(plan.hyper, task, rng.at("init"))
    parts = {name: getattr(data, name) for name in kinds.SPLITS}
    sizes = {name: torch.from_numpy(part.offsets).diff() for name, part in parts.items()}
    shares = {name: shares_of(part, data.clients, device) for name, part in parts.items()}
    federation = Federation(
        plan.algorithm, plan.hyper, shared, settings, rng, device, data.classes, sizes, shares, pairs
    )
    return federation, State(clients, server)


def fleet(federation: Federation, state: State) -> Fleet:
    """The clients at work: in this process, or in several. UserError if they can't be divided among processes."""
    workers = federation.settings.workers
    if workers == 1:
        return InProcess(federation, state.clients)
    if federation.device.type != "cpu":
        raise UserError(
            f"--workers {workers} divides a CPU; on {federation.device} leave it at 1, or add --device cpu."
        )
    return Workers(federation, state.clients, workers)


def shares_of(part: kinds.Split, clients: int, device: torch.device) -> list[Share]:
    images, labels = torch.from_numpy(part.images).to(device), torch.from_numpy(part.labels).to(device)
    return [Share(images[part.rows(client)], labels[part.rows(client)]) for client in range(clients)]


def check_shares(data: kinds.Data, settings: Train) -> None:
    sizes = data.train.offsets[1:] - data.train.offsets[:-1]
    least = settings.batch_size if settings.drop_last else 2
    for client in (sizes < least).nonzero()[0][:1]:
        why = "fewer than a batch, and drop-last leaves out the rest" if settings.drop_last else "training needs two"
        raise UserError(
            f"Client {client} of {data.artifact.ref} has {sizes[client]} training images, {why}; prepare with a larger --min-samples."
        )
    if not len(data.test.labels):
        raise UserError(f"{data.artifact.ref} has no test images; prepare it with a test fraction.")


def models(plan: Plan, data: kinds.Data) -> list[split.SplitModel]:
    """Every client's freshly initialised model; each architecture is tried on two images first."""
    shape, dim, built = data.train.images.shape[1:], plan.settings.feature_dim, []
    tried: set[str] = set()
    names = split.architectures(plan.settings.models, data.clients)
    weights = pretrained.read(plan.settings.pretrained, names)
    for client, name in enumerate(names):
        same = plan.settings.initial_weights == "same"
        seed = plan.seed if same else Rng(plan.seed).seed("weights", client)
        try:
            model = split.build(name, shape, data.classes, dim, seed, weights)
            if name not in tried:
                split.shapes(model, shape)
                if plan.settings.batch_size == 1:
                    split.check_single(model, shape)
                tried.add(name)
        except UserError as error:
            raise UserError(f"Client {client}'s model '{name}' does not fit: {error}") from error
        model.bf16 = plan.settings.precision == "bf16"
        built.append(model)
    return built


def pair_source(plan: Plan, data: kinds.Data, device: torch.device) -> PairSource | None:
    """The server's pairs from the latents artifact, for an algorithm that wants them."""
    if plan.latents is None:
        return None
    size, bank = data.train.images.shape[-1], kinds.read(plan.latents)
    if plan.settings.pairs == "live":
        embeddings = {name: torch.from_numpy(values) for name, values in bank.embeddings.items()}
        generator = registry.again(
            plan.latents.settings, bank.generator, embeddings, plan.settings.generator, plan.settings.weights, device
        )
        if generator.latent_dim != bank.latents.shape[1]:
            raise UserError(
                f"The generator of {plan.latents.ref} takes latents of {generator.latent_dim}, the bank holds "
                f"{bank.latents.shape[1]}; generate the bank again."
            )
        return LivePairs(generator, size, device)
    latents, images = (torch.from_numpy(values).to(device) for values in (bank.latents, bank.images))
    return BankPairs(latents, images, size, data.classes)
