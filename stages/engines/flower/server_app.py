"""The server's Flower app, which a SuperLink runs: a relay to `fedktl train`."""

from flwr.serverapp import ServerApp

from stages.engines.flower.link import relay

app = ServerApp()
app.main()(relay)
