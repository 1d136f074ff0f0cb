"""Clients as nodes of Flower: the round loop's pool over a link. A client that does not answer is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stages.algorithms.common.records import packed
from stages.engines.clients import EVALUATED, Answer
from stages.engines.federation import Federation, Missing
from stages.engines.flower import checks
from stages.engines.flower.link import Link, Reply
from stages.engines.flower.payload import Facts
from stages.engines.plan import RunSpec, data_spec_of
from stages.errors import UserError, printable
from stages.observer import Observer

POLL = 0.05  # seconds between checks for replies
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
        """Accept only clients of this run's data from now on; others have to say again who they are."""
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
                self.heard(node, replies[id])

    def heard(self, node: int, reply: Reply) -> None:
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
        """The client's node has to say again who it is before it gets work."""
        if node := self.nodes.get(client):
            del self.claims[node]


@dataclass
class FlowerClients:
    """The pool. `terms` is what every client needs to take part; `run` is the key of its model on its disk."""

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

    def train(self, rounds: int, joined: list[int], download: Any) -> dict[int, Answer | Missing]:
        """Raises UserError if fewer than `min_clients` answer."""
        replies = self.exchange("train", rounds, joined, download)
        answers = {client: self.judged(client, replies, self.trained) for client in joined}
        self.check_enough(list(answers.values()), f"In round {rounds + 1}")
        self.done = rounds + 1
        return answers

    def evaluate(self, rounds: int, download: Any) -> dict[str, Tensor]:
        everyone = list(range(self.federation.clients))
        replies = self.exchange("evaluate", rounds, everyone, download)
        measured = {split: torch.full((len(everyone),), -1, dtype=torch.int64) for split in EVALUATED}
        measured["test_auc"] = torch.full((len(everyone),), torch.nan, dtype=torch.float64)
        found = [self.judged(client, replies, self.evaluated) for client in everyone]
        self.check_enough(found, f"In the evaluation after round {rounds}")
        for client, its in enumerate(found):
            if not isinstance(its, Missing):
                for name, number in its.items():
                    measured[name][client] = number
        return measured

    def check_enough(self, answers: list[Any], when: str) -> None:
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

    def judged(self, client: int, replies: Mapping[int, Reply], read: Callable[[int, Reply], Any]) -> Any:
        """What a client's reply says, or why it is missing, which the user is told."""
        reply = replies.get(client)
        missing, why = Missing.ABSENT, "no node serves it"
        if client in self.registry.nodes:
            missing, why = Missing.LATE, "it did not answer in time"
        if reply is not None:
            try:
                return read(client, checks.checked(reply, client))
            except UserError as error:
                failed = reply.error or "error" in reply.facts
                missing, why = Missing.FAILED if failed else Missing.REFUSED, str(error)
        if reply is None or reply.error:
            self.registry.lost(client)
        self.registry.observer.note(f"Client {client} is missing after round {self.done}: {printable(why, LONGEST)}")
        return missing

    def exchange(self, kind: str, rounds: int, wanted: list[int], download: Any) -> dict[int, Reply]:
        """The replies that arrive within `round_timeout`, by client."""
        settings, deadline = self.federation.settings, time.monotonic() + self.federation.settings.round_timeout
        nodes = self.present(wanted)
        while len(nodes) < min(settings.min_clients, len(wanted)) and time.monotonic() < deadline:
            time.sleep(POLL)
            nodes = self.present(wanted)
        facts = {
            "run": self.run, "terms": self.terms, "rounds": rounds, "kept": self.saved, "sent": download is not None
        }  # fmt: skip
        arrays, timeout = packed(download, settings.wire), settings.round_timeout
        own = {node: {**facts, "client": client} for client, node in nodes.items()}
        sent = self.link.push(kind, arrays, own, timeout) if own else {}
        waiting = {sent[node].id: client for client, node in nodes.items() if node in sent}
        replies: dict[int, Reply] = {}
        deadline = time.monotonic() + timeout
        while waiting and time.monotonic() < deadline:
            for id, reply in self.link.pull(waiting).items():
                replies[waiting.pop(id)] = reply
            time.sleep(POLL if waiting else 0)
        if kind == "train":
            count = self.federation.clients
            down = {client: sent[node].size for client, node in nodes.items() if node in sent}
            self.moved = {
                "wire_upload_bytes": [replies[c].size if c in replies else 0 for c in range(count)],
                "wire_download_bytes": [down.get(c, 0) for c in range(count)],
            }
        return replies

    def present(self, wanted: list[int]) -> dict[int, int]:
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
            f"No node came for {whom} within {timeout:g} seconds; start the nodes with fedktl federation join."
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
