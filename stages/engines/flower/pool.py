"""Clients as nodes of Flower: the round loop's pool over a link. A client that does not answer is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from stages.algorithms.common.records import packed
from stages.artifacts.schemas import EVALUATED
from stages.clock import TURN, charge, divided
from stages.engines.clients import Answer
from stages.engines.federation import Federation, Missing
from stages.engines.flower import checks
from stages.engines.flower.link import Link, Reply, Sent
from stages.engines.flower.payload import Facts
from stages.engines.plan import RunSpec, data_spec_of
from stages.engines.recording import phases
from stages.engines.rounds import participants
from stages.errors import UserError, printable
from stages.observer import Observer

T = TypeVar("T")
POLL = 0.05  # seconds between checks for replies
SLACK = 5.0  # seconds by which a message outlives its round, so that Flower reports no error for a late client
LONGEST = 300  # characters shown of a node's reason for being missing or refused
ASK = 3600.0  # seconds that a node has to say who it is


@dataclass
class NodeRegistry:
    """Which node is which client. Nodes come and go; each new one is asked who it is, without waiting for its answer."""

    link: Link
    observer: Observer
    claims: dict[int, Facts] = field(default_factory=dict)  # node -> how it described itself, in order of arrival
    asked: dict[int, str] = field(default_factory=dict)  # node -> message
    refused: set[int] = field(default_factory=set)
    alike: dict[str, Any] = field(default_factory=dict)  # what every client must agree on

    def expect(self, spec: RunSpec) -> None:
        """Accept only clients of this run's data from now on; others must identify themselves again."""
        data_spec = data_spec_of(spec.data)
        self.alike = {
            "clients": data_spec.clients, "classes": data_spec.classes, "shape": list(data_spec.shape),
            "data": spec.data.identity,
        }  # fmt: skip
        self.claims = {node: facts for node, facts in self.claims.items() if self.alike.items() <= facts.items()}

    @property
    def nodes(self) -> dict[int, int]:
        """Client -> its node: the first one to claim its number."""
        return {facts["client"]: node for node, facts in reversed(self.claims.items())}

    def update(self) -> None:
        """Ask new nodes who they are, and record the answers of those asked before."""
        present = self.link.nodes()
        self.claims = {node: facts for node, facts in self.claims.items() if node in present}
        self.asked = {node: id for node, id in self.asked.items() if node in present}
        new = present - self.claims.keys() - self.asked.keys() - self.refused
        if new:
            sent = self.link.push("query", {}, {node: {} for node in new}, ASK)
            self.asked |= {node: one.id for node, one in sent.items()}
        replies = self.link.pull(self.asked.values()) if self.asked else {}
        for node, id in list(self.asked.items()):
            if id in replies:
                del self.asked[node]
                self.record(node, replies[id])

    def record(self, node: int, reply: Reply) -> None:
        try:
            checks.described(reply, self.alike)
        except UserError as error:
            self.refused.add(node)
            self.observer.note(f"A node was refused: {printable(str(error), LONGEST)}")
            return
        if reply.facts["client"] in self.nodes:
            self.observer.note(f"Two nodes say they are client {reply.facts['client']}; the first one is used.")
        self.claims[node] = reply.facts

    def lost(self, client: int) -> None:
        """The client's node must identify itself again before it gets work."""
        if node := self.nodes.get(client):
            del self.claims[node]


@dataclass(frozen=True)
class Exchange:
    """What came back from clients that were sent work, and what went there."""

    rounds: int
    replies: Mapping[int, Reply]
    down: Mapping[int, int]  # bytes sent to each client
    seconds: float
    phases: Mapping[str, float]  # the same seconds, by phase


@dataclass
class FlowerClients:
    """The pool. `terms` is what every client needs to take part; `run` is the key of a model on a client's disk.

    A client gets one message a round: an evaluation and the training after it use the same download, so the training is
    sent along with the evaluation, and `train` finds the answers there.
    """

    federation: Federation
    link: Link
    registry: NodeRegistry
    upload_spec: checks.UploadSpec
    run: str
    terms: Facts
    saved: int  # rounds in the last checkpoint
    gather: Callable[[int], None] = lambda rounds: None  # bring the clients' states here, if they may leave the clients
    end: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.done = self.saved
        self.moved: dict[str, list[int]] = {}
        self.ahead: Exchange | None = None  # with the next round's training in it
        self.told: set[str] = set()  # notes about the clients of one exchange

    def train(self, rounds: int, joined: list[int], download: Any) -> dict[int, Answer | Missing]:
        """Raises UserError if fewer than `min_clients` answer."""
        if self.ahead and self.ahead.rounds == rounds:
            came = self.ahead
        else:
            came = self.exchange(rounds, download, dict.fromkeys(joined, "train"))
            charge("local training", -came.seconds)
        for phase, seconds in came.phases.items():
            if phase != "evaluation":
                charge(phase, seconds)
        self.ahead = None
        answers = {client: self.judged(client, came, self.trained) for client in joined}
        uploads = {client: answer.upload for client, answer in answers.items() if isinstance(answer, Answer)}
        for client, why in checks.excessive(uploads).items():
            answers[client] = self.missed(client, Missing.REFUSED, why)
        self.check_enough(list(answers.values()), f"In round {rounds + 1}")
        everyone = range(self.federation.clients)
        self.moved = {
            "wire_upload_bytes": [came.replies[c].size if c in joined and c in came.replies else 0 for c in everyone],
            "wire_download_bytes": [came.down.get(c, 0) if c in joined else 0 for c in everyone],
        }
        self.done = rounds + 1
        return answers

    def evaluate(self, rounds: int, chosen: list[int], download: Any) -> dict[str, Tensor]:
        joined = (
            participants(self.federation, self.federation.rng.at("round", rounds))[0] if self.goes_on(rounds) else []
        )
        work = dict.fromkeys(sorted({*joined, *chosen}), "evaluate") | dict.fromkeys(joined, "train")
        came = self.exchange(rounds, download, work, set(chosen))
        if joined:
            self.ahead = came
            charge("evaluation", came.phases.get("evaluation", 0.0) - came.seconds)
        measured = {split: torch.full((len(chosen),), -1, dtype=torch.int64) for split in EVALUATED}
        measured["test_auc"] = torch.full((len(chosen),), torch.nan, dtype=torch.float64)
        found = [self.judged(client, came, self.evaluated) for client in chosen]
        self.check_enough(found, f"In the evaluation after round {rounds}")
        for place, its in enumerate(found):
            if not isinstance(its, Missing):
                for name, number in its.items():
                    measured[name][place] = number
        return measured

    def goes_on(self, rounds: int) -> bool:
        """Whether another round is certain to follow after `rounds`, whatever their evaluation shows."""
        settings = self.federation.settings
        return rounds < settings.rounds and not settings.patience and not self.registry.observer.stop_requested()

    def check_enough(self, answers: Sequence[object], when: str) -> None:
        count, least = sum(not isinstance(a, Missing) for a in answers), self.federation.settings.min_clients
        if count < min(least, len(answers)):
            raise UserError(
                f"{when} {count} of {len(answers)} clients answered, fewer than `min_clients={least}`; "
                "start the others, then resume the run."
            )

    def trained(self, client: int, reply: Reply) -> Answer:
        return checks.trained(reply, self.upload_spec, self.federation, int(self.federation.sizes["train"][client]))

    def evaluated(self, client: int, reply: Reply) -> dict[str, float]:
        sizes = {split: int(self.federation.sizes[split][client]) for split in EVALUATED}
        return checks.evaluated(reply, sizes)

    def judged(self, client: int, came: Exchange, read: Callable[[int, Reply], T]) -> T | Missing:
        """A client's reply as `read` understands it, or why the client is missing, which the user is told."""
        reply = came.replies.get(client)
        missing, why = Missing.ABSENT, "no node serves it"
        if client in came.down:
            missing, why = Missing.LATE, "it did not answer in time"
        if reply is not None:
            try:
                return read(client, checks.checked(reply, client))
            except checks.ClientFailed as error:
                missing, why = Missing.FAILED, str(error)
            except UserError as error:
                missing, why = Missing.REFUSED, str(error)
        if reply is None or reply.error:
            self.registry.lost(client)
        return self.missed(client, missing, why)

    def missed(self, client: int, missing: Missing, why: str) -> Missing:
        """Tells the user, once for each message."""
        note = f"Client {client} is missing after round {self.done}: {printable(why, LONGEST)}"
        if note not in self.told:
            self.registry.observer.note(note)
        self.told.add(note)
        return missing

    def exchange(self, rounds: int, download: Any, work: Mapping[int, str], evaluate: Collection[int] = ()) -> Exchange:
        """Send clients their `work`, train or evaluate; those who train do both if they are among `evaluate`.

        Only what arrives within `round_timeout` counts.
        """
        begun = time.monotonic()
        settings, timeout, self.told = self.federation.settings, self.federation.settings.round_timeout, set()
        nodes = self.present(work)
        while len(nodes) < min(settings.min_clients, len(work)) and time.monotonic() < begun + timeout:
            time.sleep(POLL)
            nodes = self.present(work)
        facts = {
            "run": self.run, "terms": self.terms, "rounds": rounds, "kept": self.saved, "sent": download is not None,
        }  # fmt: skip
        arrays, sent = packed(download, settings.wire), dict[int, Sent]()
        for kind in sorted(set(work.values())):
            own = {
                node: {**facts, "client": client, "evaluate": client in evaluate}
                for client, node in nodes.items() if work[client] == kind
            }  # fmt: skip
            sent |= self.link.push(kind, arrays, own, timeout + SLACK) if own else {}
        waiting = {sent[node].id: client for client, node in nodes.items() if node in sent}
        replies: dict[int, Reply] = {}
        deadline = time.monotonic() + timeout
        while waiting and time.monotonic() < deadline:
            for id, reply in self.link.pull(waiting).items():
                replies[waiting.pop(id)] = reply
            time.sleep(POLL if waiting else 0)
        down = {client: sent[node].size for client, node in nodes.items() if node in sent}
        seconds = time.monotonic() - begun
        known = {TURN, *phases(self.federation)}
        turns = [checks.seconds(reply, known, seconds) for reply in replies.values()]
        return Exchange(rounds, replies, down, seconds, divided(seconds, "local training", turns))

    def present(self, wanted: Iterable[int]) -> dict[int, int]:
        self.registry.update()
        nodes = self.registry.nodes
        return {client: nodes[client] for client in wanted if client in nodes}

    def traffic(self) -> dict[str, list[int]]:
        return self.moved

    def collect(self) -> None:
        self.gather(self.done)
        self.saved = self.done

    def close(self) -> None:
        self.end()


def require_nodes(registry: NodeRegistry, timeout: float, clients: int | None = None) -> list[Facts]:
    """How every client describes itself. UserError names those without a node after `timeout` seconds.

    Unless their number is given, it is what the first client says.
    """
    absent = wait_for_nodes(registry, timeout, clients)
    if absent or not registry.claims:
        whom = f"clients {printable(', '.join(map(str, absent)), 100)}" if absent else "any client"
        raise UserError(
            f"No node connected for {whom} within {timeout:g} seconds; start the nodes with fedktl federation join."
        )
    return [registry.claims[node] for _, node in sorted(registry.nodes.items())]


def wait_for_nodes(registry: NodeRegistry, timeout: float, clients: int | None = None) -> list[int]:
    """Wait at most `timeout` seconds for every client to have a node; returns the clients without one."""
    deadline = time.monotonic() + timeout
    while True:
        registry.update()
        if clients is None and registry.claims:
            first = next(iter(registry.claims.values()))
            registry.alike = {name: first[name] for name in ("clients", "classes", "shape", "data")}
            clients = first["clients"]
        absent = sorted(set(range(clients or 0)) - registry.nodes.keys())
        if (clients and not absent) or time.monotonic() > deadline:
            return absent
        time.sleep(POLL)
