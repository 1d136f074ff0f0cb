"""What a SuperLink runs: a Flower app for the server, which only relays to `fedktl train`.

Flower also requires an app for the clients. No node of ours loads it: each runs the code on its own machine.
"""

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from stages.engines.flower.link import relay

client = ClientApp()
app = ServerApp()
app.main()(relay)
