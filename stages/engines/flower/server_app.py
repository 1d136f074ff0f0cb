"""What a SuperLink knows of us: the server's Flower app, which it runs, is a relay to `fedktl train`.

Flower wants a client's app to be named, too. No node of ours loads it: what they run is on their own machines.
"""

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from stages.engines.flower.link import relay

client = ClientApp()
app = ServerApp()
app.main()(relay)
