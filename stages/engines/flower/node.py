"""A client: its images, its model on its own disk, and its answers to the server's messages.

query                      who it is and how many images it has; never the images themselves
train, evaluate            a round's work, by the same functions as in every other engine; `train` evaluates first if asked
"""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stages import algorithms
from stages.algorithms.common.records import packed, rebuilt, received
from stages.algorithms.contract import ClientState
from stages.artifacts import schemas
from stages.artifacts.store import Artifact
from stages.clock import TURN, Clock, collecting, phase
from stages.devices import device as placed
from stages.devices import set_up
from stages.engines import clients
from stages.engines.assembly import model_of, task_of
from stages.engines.federation import ClientData, Federation
from stages.engines.flower.disk import Disk
from stages.engines.flower.payload import Arrays, Facts, from_records, to_records
from stages.engines.plan import RemoteData, RunSpec
from stages.errors import UserError, printable
from stages.models import pretrained, split
from stages.randomness import Rng
from stages.settings import Train

if TYPE_CHECKING:
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp

Answered = tuple[dict[str, np.ndarray], dict[str, Any]]


@dataclass(frozen=True)
class ClientNode:
    """Where one client lives: its number, the artifact with its images, the folder of its models."""

    client: int
    data: Artifact
    folder: Path
    secret: str = ""  # unknown to the server, for noise that protects the client from it

    def __post_init__(self) -> None:
        part, clients = self.data.attributes.get("part_of"), len(self.data.array("counts"))
        if part and part["client"] != self.client:
            raise UserError(
                f"{self.data.ref} holds client {part['client']}, not {self.client}; give the data of this client."
            )
        if not part and self.client >= clients:
            raise UserError(f"{self.data.ref} has no client {self.client}; its clients are 0 to {clients - 1}.")

    @property
    def row(self) -> int:
        """The client's index in its artifact."""
        return 0 if "part_of" in self.data.attributes else self.client

    @cached_property
    def data_spec(self) -> schemas.DataSpec:
        """Read once, because an artifact does not change."""
        return schemas.census(self.data)

    def described(self) -> dict[str, Any]:
        data_spec = self.data_spec
        part = self.data.attributes.get("part_of")
        return {
            "client": self.client, "clients": part["clients"] if part else data_spec.clients, "classes": data_spec.classes,
            "shape": list(data_spec.shape), "sizes": {name: sizes[self.row] for name, sizes in data_spec.sizes.items()},
            "data": self.data.attributes["made_from"]["data"] if part else self.data.identity,
        }  # fmt: skip


@dataclass(frozen=True)
class Ready:
    """What a client has set up for a run: the federation as it knows it, its state after `rounds`, its images by split."""

    terms: Facts
    run: str
    rounds: int
    federation: Federation
    state: ClientState
    shares: dict[str, ClientData]


@dataclass
class Client:
    """Answers the server's messages, one after the other, and stays ready for the next one of the same run."""

    home: ClientNode
    ready: Ready | None = None

    def answer(self, kind: str, arrays: Arrays, facts: Facts) -> Answered:
        """The answer to a message. Raises UserError for a message that it refuses."""
        if kind == "query":
            return {}, self.home.described()
        if facts["client"] != self.home.client:
            raise UserError(f"A message for client {facts['client']} reached client {self.home.client}.")
        ready = self.prepared(facts)
        with collecting(Clock()) as clock:
            own, told = self.worked(ready, kind == "train", arrays, facts)
        return own, {"client": self.home.client, **told, "seconds": in_digits(clock.seconds)}

    def worked(self, ready: Ready, training: bool, arrays: Arrays, facts: Facts) -> Answered:
        """A round's work for one client: with `training` it trains, after an evaluation if asked; else it only evaluates."""
        federation, state, shares = ready.federation, ready.state, ready.shares
        disk, rounds = Disk(self.home.folder, facts["run"], self.home.client), facts["rounds"]
        record = federation.algorithm.Download if facts["sent"] else None
        came = {name: tensor.to(federation.device) for name, tensor in received(arrays).items()}
        download = None if record is None else rebuilt(record, came)
        told: dict[str, Any] = {}
        if facts["evaluate"] or not training:
            with phase("evaluation"):
                told["measured"] = measured(federation, state, shares, download)
        if not training:
            self.ready = ready
            return {}, told
        disk.forget(rounds, facts["kept"])
        try:
            with phase(TURN):
                done = clients.train(federation, self.home.client, state, shares["train"], rounds, download)
            clients.check_finite(done.metrics, f"Client {self.home.client}", rounds)  # before the state on disk changes
        except UserError as error:
            return {}, {**told, "failed": printable(str(error), 1000)}
        disk.save(state, rounds + 1)
        self.ready = replace(ready, rounds=rounds + 1)
        told |= {"metrics": done.metrics, "sent": done.upload is not None}
        return packed(done.upload, federation.settings.wire), told

    def prepared(self, facts: Facts) -> Ready:
        """What the message needs: what the last one left in memory if the disk has the same, else what the disk has.

        Until the message is answered nothing counts as ready: work that failed half-way must not be continued.
        """
        disk, (ready, self.ready) = Disk(self.home.folder, facts["run"], self.home.client), (self.ready, None)
        newest = disk.newest(facts["rounds"])
        if ready and (ready.terms, ready.run, ready.rounds) == (facts["terms"], facts["run"], newest or 0):
            return ready
        federation, state, shares = at_home(facts["terms"], self.home, newest is None)
        disk.load(state, facts["rounds"], federation.device)
        return Ready(facts["terms"], facts["run"], newest or 0, federation, state, shares)


def measured(
    federation: Federation, state: ClientState, shares: Mapping[str, ClientData], download: Any
) -> dict[str, int | float | None]:
    """What an evaluation finds, without the confusion, which is large; None in place of NaN."""
    found = clients.evaluated(federation, state, shares, download)
    numbers = {name: value.item() for name, value in found.items() if name != "test_confusion"}
    return {name: None if number != number else number for name, number in numbers.items()}


def in_digits(seconds: Mapping[str, float]) -> dict[str, str]:
    """Texts of equal length, so that the size of an answer does not depend on the clock."""
    return {name: f"{number:016.6f}" for name, number in seconds.items()}


def at_home(terms: Facts, home: ClientNode, fresh: bool) -> tuple[Federation, ClientState, dict[str, ClientData]]:
    """The federation as this client knows it, its untrained model, and its images, all on its device.

    Pretrained weights are needed only for a `fresh` model, one without weights on disk.
    """
    algorithm, settings = algorithms.get(terms["algorithm"]), Train.make(terms["settings"])
    set_up(settings)
    device, rng = placed(settings.device), Rng(terms["seed"], secret=home.secret)
    own = home.data_spec
    data_spec = schemas.DataSpec(
        terms["classes"], tuple(terms["shape"]), dict.fromkeys(schemas.SPLITS, [0] * terms["clients"])
    )
    if (own.classes, own.shape) != (data_spec.classes, data_spec.shape):
        raise UserError(
            f"The run has {data_spec.classes} classes of {data_spec.shape} images, but {home.data.ref} has {own.classes} of "
            f"{own.shape}."
        )
    data = RemoteData(home.data.identity, data_spec)
    spec = RunSpec(algorithm, algorithm.Hyper.make(terms["hyper"]), settings, terms["seed"], data, None)
    weights = pretrained.read(
        settings.pretrained if fresh else (), split.architectures(settings.models, data_spec.clients)
    )
    state = ClientState(model_of(spec, data_spec, home.client, weights).to(device))
    _, shared = algorithm.init(spec.hyper, task_of(spec, data_spec, terms["latent_dim"], device), rng.at("init"))
    federation = Federation(algorithm, spec.hyper, shared, settings, rng, device, data_spec.classes, {}, {}, None)
    shares = {
        name: ClientData(torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device))
        for name, (images, labels) in schemas.read_share(home.data, home.row, schemas.SPLITS).items()
    }
    return federation, state, shares


def client_app(home_of: Callable[[Context], ClientNode]) -> ClientApp:
    """A simulated client's Flower app; `home_of` finds its home from its context."""
    from flwr.app import Message
    from flwr.clientapp import ClientApp

    app = ClientApp()

    def replied(message: Message, context: Context) -> Message:
        try:
            arrays, facts = from_records(message.content)
            client = Client(home_of(context))
            records = to_records(*client.answer(message.metadata.message_type, arrays, facts))
        except UserError as error:
            records = to_records({}, {"error": printable(str(error), 1000)})
        return Message(records, reply_to=message)

    for register in (app.query(), app.train(), app.evaluate()):
        register(replied)
    return app


def secret_in(folder: Path) -> str:
    """The client's secret, drawn once; the same for a message that comes again, so that its answer tells nothing new."""
    path, draft = folder / "secret", folder / f"secret.{uuid.uuid4().hex}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_hex(16))
        with suppress(FileExistsError):  # another process was quicker
            os.link(draft, path)
        draft.unlink()
    return path.read_text()
