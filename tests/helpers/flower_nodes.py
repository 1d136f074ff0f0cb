"""Flower's nodes in this process: real messages and the real client app, but no network and no other process."""

import dataclasses
from itertools import count

from flwr.app import Context, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from stages.engines.assembly import assemble
from stages.engines.flower.disk import Disk
from stages.engines.flower.engine import nodes
from stages.engines.flower.link import GridLink
from stages.engines.flower.node import client_app
from stages.engines.flower.pool import NodeRegistry, require_nodes
from tests.helpers.toy_runs import Notes, planned

RUN = "0123456789abcdef" * 2
TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1


class Grid:
    """Answers at once. `spoil[client](kind, reply)` may change a client's reply, or return None: it never comes."""

    def __init__(self, homes):
        self.fresh = count(1)
        self.homes = {next(self.fresh): home for home in homes}
        self.replies, self.spoil, self.contents = {}, {}, []

    def get_node_ids(self):
        return list(self.homes)

    def push_messages(self, messages):
        return [self.delivered(message) for message in messages]

    def delivered(self, message):
        id, home, kind = (
            f"m{next(self.fresh)}",
            self.homes.get(message.metadata.dst_node_id),
            message.metadata.message_type,
        )
        message.metadata.__dict__["_message_id"] = id
        if home is None:
            self.replies[id] = Message(Error(3, "Node Unavailable"), reply_to=message)
            return id
        self.contents.append(message.content)
        context = Context(
            run_id=1, node_id=message.metadata.dst_node_id, node_config={}, state=RecordDict(), run_config={}
        )
        try:
            reply = client_app(lambda context: home)(message, context)
        except Exception as error:  # as Flower does
            reply = Message(Error(2, repr(error)), reply_to=message)
        self.replies[id] = self.spoil.get(home.client, lambda kind, reply: reply)(kind, reply)
        return id

    def pull_messages(self, ids):
        return [self.replies.pop(id) for id in ids if self.replies.get(id) is not None]

    def leave(self, client):
        node = next(node for node, home in self.homes.items() if home.client == client)
        return self.homes.pop(node)

    def come(self, home):
        self.homes[next(self.fresh)] = home


def mustered(plan, federation, state, grid, notes=None):
    """The pool of a plan over these nodes, whose clients' states come back as from simulated ones."""
    link = GridLink(grid)
    registry = NodeRegistry(link, notes or Notes())
    require_nodes(registry, 5, federation.clients)
    pool = nodes(plan, federation, state, link, registry)
    pool.gather = lambda rounds: gathered(plan, federation, state, next(iter(grid.homes.values())).folder)
    return pool


def gathered(plan, federation, state, folder):
    """The clients' states from their disks, into `state`."""
    for client, own in enumerate(state.clients):
        Disk(folder, plan.run, client).load(own, state.rounds, federation.device)


def over_flower(store, homes, algorithm="fedktl", grid=None, notes=None, **settings):
    plan = dataclasses.replace(planned(store, algorithm, round_timeout=0.3, **settings), run=RUN)
    federation, state = assemble(plan, images=False)
    return plan, federation, state, mustered(plan, federation, state, grid or Grid(homes), notes)
