"""One run: begun, or resumed where it stopped; its rounds played; published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages.artifacts import partial as partials
from stages.artifacts.partial import Partial
from stages.artifacts.round_log import RoundLog
from stages.artifacts.store import Artifact, Store
from stages.engines import checkpoint, recording, rounds
from stages.engines.assembly import assemble
from stages.engines.engine import Engine
from stages.engines.federation import Diverged, Federation, State
from stages.engines.plan import RunSpec
from stages.engines.run_artifact import facts, packed_run, publish
from stages.engines.shelf import FOLDER, NAMED
from stages.errors import Failed, Interrupted, sentence
from stages.observer import Observer, Several


@dataclass
class Ready:
    """A run whose next round can begin."""

    partial: Partial  # held by this process
    spec: RunSpec
    federation: Federation
    state: State


def begin(store: Store, name: str, spec: RunSpec, engine: Engine, taken: Callable[[], bool] = lambda: False) -> Ready:
    """A new run. Raises Taken if another process has begun it; a run that can't be assembled leaves nothing."""
    federation, state = assemble(spec, engine.images)
    partial = Partial.begin(store, "run", name, facts(spec, federation), taken)
    give_folder(state, partial)
    return Ready(partial, spec, federation, state)


def resume(
    store: Store, from_: Path | Artifact, spec: RunSpec, engine: Engine, taken: Callable[[], bool] = lambda: False
) -> Ready:
    """The unfinished run in a folder from its newest checkpoint, or a finished run for longer, as its next version."""
    with ExitStack() as held:
        if isinstance(from_, Path):
            partial = Partial.reopen(from_)
            held.callback(partial.close)
            saved = partial.checkpoint()
            packed = checkpoint.read(saved) if saved else None
        else:
            packed = packed_run(from_)
        if packed is None:
            federation, state = assemble(spec, engine.images)
        else:  # the checkpoint has the weights, so the files they came from may be gone
            federation, state = assemble(replace(spec, settings=replace(spec.settings, pretrained=())), engine.images)
        if isinstance(from_, Artifact):
            partial = Partial.begin(store, "run", from_.ref.name, facts(spec, federation), taken)
            held.callback(partial.discard)
        give_folder(state, partial)
        with store.writable(partial.path):
            if packed is not None:
                checkpoint.unpack(state, packed, spec.algorithm, federation.device, partial.path / FOLDER)
            if isinstance(from_, Path):
                partial.record(facts(spec, federation))
            else:
                save(partial, state)  # from here on the finished run is not needed
        held.pop_all()
        return Ready(partial, spec, federation, state)


def finish(store: Store, ready: Ready, engine: Engine, observer: Observer) -> Artifact:
    """Play the rounds that are left and publish the run.

    Raises Interrupted when the observer asks to stop, Failed for whatever ends the run after its first checkpoint; a fault
    before that leaves nothing and is passed on as it is.
    """
    partial, spec, federation, state, ended = ready.partial, ready.spec, ready.federation, ready.state, "failed"
    try:
        with store.writable(partial.path):
            behind = range(state.rounds + 1 if "rounds/evaluated" in state.history else 0)
            log = RoundLog(partial.path, [recording.line(federation, state.history, number) for number in behind])
        observer = Several(observer, log)
        observer.begin_run(str(partial.ref), partial.facts, state.rounds)
        observer.start(f"{spec.algorithm.name}, seed {spec.seed}", spec.settings.rounds, state.rounds)
        with closing(engine.pool(spec, federation, state)) as pool, store.writable(partial.path):
            rounds.run(federation, state, pool, observer, lambda s: save(partial, s))
        if observer.stop_requested() and not rounds.finished(federation, state):
            raise Interrupted(
                f"Stopped {partial.ref} after round {state.rounds}; the same command continues from there."
            )
        artifact = publish(store, partial, spec, federation, state)
        if promise := artifact.attributes["facts"].get("privacy"):
            observer.note(f"{artifact.ref}: {private(promise)}")
        partial.discard()
        ended = "done"
        return artifact
    except (Interrupted, KeyboardInterrupt):
        ended = "stopped"
        raise
    except (Exception, SystemExit) as error:
        if partials.checkpoints(partial.path):
            raise failed(partial, error) from error
        partial.discard()
        raise
    finally:
        observer.finish()
        observer.end_run(ended)
        partial.close()


def private(promise: Mapping[str, Any]) -> str:
    """What a run's noise promises its clients, in a sentence."""
    if promise["epsilon"] is None:
        return "epsilon is not computed; `pip install 'fedktl[privacy]'` for it."
    return (
        f"{promise['releases']} uploads of {promise['protects']} are ({promise['epsilon']:.3g}, {promise['delta']:g})-"
        f"differentially private; the unit is {promise['unit']}."
    )


def failed(partial: Partial, error: BaseException) -> Failed:
    """The fault, recorded beside the checkpoint from which the run can be tried again."""
    advice = "; try a lower `lr`" if isinstance(error, Diverged) else ""
    saved = partials.checkpoints(partial.path)
    message = f"{sentence(error).rstrip('.')}. The last good checkpoint is {saved[max(saved)]}{advice}."
    with suppress(OSError):  # the disk may be what failed
        partial.fail(message)
    return Failed(message, partial.ref)


def give_folder(state: State, partial: Partial) -> None:
    """Tell a shelf where its files are."""
    if state.shelf:
        state.shelf.folder = partial.path / FOLDER


def save(partial: Partial, state: State) -> None:
    if state.shelf:
        state.shelf.settle()
    partial.save(state.rounds, lambda path: checkpoint.write(state, path))
    if state.shelf:
        state.shelf.release(state.shelf.files, *(value for path, value in state.selected.items() if path == NAMED))
