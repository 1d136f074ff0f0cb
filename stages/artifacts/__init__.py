"""Versioned, immutable Zarr artifacts. FORMAT.md beside this file specifies the format.

refs.py         references: names, versions, kinds; folders.py: the versions in the folder of one name, and their locks
store.py        the store: what is published, opened, removed; listing.py: all of it, by reference or pattern
writer.py       an artifact while it is written; seal.py: the manifest and seal that make damage recognisable
schemas.py      what each kind holds, as typed readers; run_array.py: how an array of a run is declared
metrics.py      the numbers of a run in long form
lineage.py      what an artifact was made from, all the way back
partial.py      unfinished work; partial_run.py: an unfinished run, read like a finished one
round_log.py    a line for each round of an unfinished run; presence.py: who is at work, on this machine or another
runs.py         every run of a store and how far it is, without reading arrays; studies.py: which are still to begin
travel.py       push and pull; remote.py: the object stores, servers and folders at the other end
local_files.py  Zarr's store of local files, without its threads
"""
