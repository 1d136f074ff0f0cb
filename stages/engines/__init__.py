"""How a run is planned, executed and stored: everything between the settings of a training and its artifact.

plan.py            what a run is: from settings and data, or from what an earlier run recorded
preview.py         what a run would be: shapes, message sizes; pricing.py what it would cost
trials.py          what a few real steps of each architecture take
study.py           the runs of a study: names, and what the store has of each
making.py          one of them found, resumed or made; playing.py: its rounds, to the artifact
assembly.py        from a RunSpec to a federation ready for its first round
federation.py      what stays the same from round to round, and what changes
rounds.py          the round loop, written once for all engines
recording.py       what a round leaves in the history; selection.py: weights of the round selected
pace.py            when a checkpoint is due
history.py         series that grow by one row per round
clients.py         what a client does in a round, wherever it lives
engine.py          which engine runs a federation
local.py           clients in this process; slots.py: several at a time on a GPU
shelf.py           clients on disk, where memory has no room for all
workers.py         clients in several processes of this machine; shared_memory.py: what these share
growing.py         from this process into workers, if that saves time
flower/            clients as nodes of Flower
checkpoint.py      a run's state as named tensors, and back
run_artifact.py    a run's state as an artifact, and back
"""
