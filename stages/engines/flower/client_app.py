"""The clients' Flower app, which SuperNodes run."""

from stages.engines.flower.node import client_app, home_of_node

app = client_app(home_of_node)
