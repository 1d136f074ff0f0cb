"""MLflow: a run of the experiment `fedktl` at PLACE, a tracking URI; default: MLFLOW_TRACKING_URI, or the file mlflow.db."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from stages import trackers
from stages.observer import Observer

STATES = {"done": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
LONGEST = 500  # characters of a value that every MLflow takes


class Tracker(Observer):
    def __init__(self, place: str):
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # a round must not wait for a server that is gone
        import mlflow
        from mlflow.entities import Metric, Param

        uri = place or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
        self._client, self._metric, self._param = mlflow.MlflowClient(tracking_uri=uri), Metric, Param

    def begin_run(self, run: str, facts: Mapping[str, Any], rounds: int) -> None:
        known = self._client.get_experiment_by_name("fedktl")
        experiment = known.experiment_id if known else self._client.create_experiment("fedktl")
        key = sha256(json.dumps([run, facts], sort_keys=True).encode()).hexdigest()
        earlier = self._client.search_runs([experiment], f"tags.fedktl = '{key}'") if rounds else []
        if earlier:  # the run goes on, and so do its curves
            self._id = earlier[0].info.run_id
            self._client.update_run(self._id, "RUNNING")
            return
        self._id = self._client.create_run(experiment, run_name=run, tags={"fedktl": key}).info.run_id
        table = trackers.parameters(facts)
        self._client.log_batch(self._id, params=[self._param(n, str(table[n])[:LONGEST]) for n in table])

    def end_round(self, line: Mapping[str, Any]) -> None:
        now, numbers = int(time.time() * 1000), trackers.metrics(line)
        self._client.log_batch(self._id, [self._metric(n, numbers[n], now, line["round"]) for n in numbers])

    def end_run(self, state: str) -> None:
        self._client.set_terminated(self._id, STATES[state])
