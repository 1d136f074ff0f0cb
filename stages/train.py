"""Stage three, the story: plan, assemble, play the rounds, publish. One run per algorithm and seed, each resumable."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

from stages import plugins, trackers
from stages.artifacts.partial import Partial, find_unfinished
from stages.artifacts.refs import Ref
from stages.artifacts.round_log import RoundLog
from stages.artifacts.schemas import read_facts
from stages.artifacts.store import Artifact, Store
from stages.engines import checkpoint, recording, rounds
from stages.engines.assembly import assemble
from stages.engines.engine import Engine, Local, open_engine
from stages.engines.federation import Diverged, Federation, State
from stages.engines.plan import NAMING, RunSpec, planned, planned_again, run_name
from stages.engines.preview import preview
from stages.engines.run_artifact import packed_run, publish
from stages.errors import Interrupted, UserError
from stages.observer import SILENT, Observer, Several
from stages.settings import Train


def train(
    store: Store, name: str | None, settings: Train, hyper: Mapping[str, Mapping[str, Any]], observer: Observer = SILENT
) -> list[Artifact]:
    """Run every algorithm with every seed. `hyper` holds what departs from an algorithm's defaults, by algorithm.

    Raises UserError for bad input and divergence, Interrupted when the observer asks to stop.
    """
    published = []
    observer = Several(observer, *trackers.chosen(settings.track, observer.note))
    with open_engine(settings, observer) as engine:
        for spec in planned(store, settings, hyper, engine.data):
            federation, state = assemble(spec, engine.images)
            partial = Partial.begin(store, "run", run_name(spec, name), spec.facts())
            published.append(finish(store, partial, spec, federation, state, engine, observer))
    return published


def resume(store: Store, ref: str, changes: Mapping[str, Any], observer: Observer = SILENT) -> Artifact:
    """Go on with an unfinished run, or with a finished one for more rounds (which makes its next version).

    Code that the run names is loaded only if `changes` name it, too, in `algorithm`, `models` or `generator`.
    """
    wanted = Ref.parse(ref)
    path = find_unfinished(store, wanted)
    with ExitStack() as held:
        held.enter_context(plugins.only(*map(changes.get, NAMING)))
        if path is not None:
            partial = Partial.reopen(path)
            held.callback(partial.close)
            spec = planned_again(store, partial.facts, changes)
            saved = partial.checkpoint()
            packed = checkpoint.read(saved) if saved else None
        else:
            finished = store.open(wanted, "run")
            spec = planned_again(store, read_facts(finished), changes)
            packed = packed_run(finished)
            if spec.settings.rounds <= int(packed["rounds"]):
                raise UserError(f"{finished.ref} has its {packed['rounds']} rounds; to go on, give more `rounds`.")
        observer = Several(observer, *trackers.chosen(spec.settings.track, observer.note))
        engine = held.enter_context(open_engine(spec.settings, observer))
        if packed is None:
            federation, state = assemble(spec, engine.images)
        else:  # the checkpoint has the weights: files they once came from need not be there
            federation, state = assemble(replace(spec, settings=replace(spec.settings, pretrained=())), engine.images)
            checkpoint.unpack(state, packed, spec.algorithm, federation.device)
        if path is None:
            partial = Partial.begin(store, "run", finished.ref.name, spec.facts())
        return finish(store, partial, spec, federation, state, engine, observer)


def dry_run(store: Store, settings: Train, hyper: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each run would be, found by one batch through every architecture; nothing is written."""
    trackers.chosen(settings.track, SILENT.note)
    if settings.federation:
        raise UserError(
            "A dry run needs the data here; leave out `federation` and name what the clients have by `data`."
        )
    return [preview(spec) for spec in planned(store, settings, hyper, Local().data)]


def finish(
    store: Store,
    partial: Partial,
    spec: RunSpec,
    federation: Federation,
    state: State,
    engine: Engine,
    observer: Observer,
) -> Artifact:
    """Run the rounds that are left and publish the run."""
    ended = "failed"
    try:
        with store.writable(partial.path):
            behind = range(state.rounds + 1 if "rounds/evaluated" in state.history else 0)
            log = RoundLog(partial.path, [recording.line(federation, state.history, number) for number in behind])
        observer = Several(observer, log)
        observer.begin_run(str(partial.ref), partial.facts, state.rounds)
        observer.start(f"{spec.algorithm.name}, seed {spec.seed}", spec.settings.rounds, state.rounds)
        with closing(engine.pool(spec, federation, state)) as pool, store.writable(partial.path):
            rounds.run(federation, state, pool, observer, lambda s: _save(partial, s))
        observer.finish()
        if observer.stop_requested() and not rounds.finished(federation, state):
            ended = "stopped"
            code = {
                "algorithm": spec.algorithm.name,
                "models": spec.settings.models,
                "generator": spec.settings.generator,
            }
            raise Interrupted(f"Stopped after round {state.rounds}; go on with {plugins.resumed(partial.ref, **code)}.")
        artifact = publish(store, partial, spec, federation, state)
        partial.discard()
        ended = "done"
        return artifact
    except KeyboardInterrupt:
        ended = "stopped"
        raise
    except Diverged as error:
        raise UserError(f"{error}. The last good checkpoint is {partial.checkpoint()}; try a lower `lr`.") from error
    finally:
        observer.end_run(ended)
        partial.close()


def _save(partial: Partial, state: State) -> None:
    partial.save(state.rounds, lambda path: checkpoint.write(state, path))
