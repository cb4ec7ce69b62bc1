"""Runs a study: what is missing in the file of results is asked for, and each
result is written as it comes."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any

from qkscope import QkscopeError
from qkscope.study import plan
from qkscope.study.ask import Asker
from qkscope.study.errors import StudyError
from qkscope.study.records import Unit
from qkscope.study.spec import ModelEntry, Study
from qkscope.study.store import Store

# Units in flight. Their arms are rows of the server's batches.
CONCURRENCY = 16


def run_study(lab: Any, study: Study, out: pathlib.Path, *,
              data: pathlib.Path | None = None,
              concurrency: int = CONCURRENCY,
              progress: Callable[[Estimate], None] | None = None) -> None:
    """Runs what is not in `out` yet. `progress` is called after each unit.

    The file is complete after each unit: ended at any moment, also by SIGKILL,
    the same call goes on where it was. Errors of the server end the study, and
    what is written stays.
    """
    if not study.models:
        study = with_all_models(lab, study)
    now = plan.model_infos(lab, study)
    if not out.exists() or out.stat().st_size == 0:
        units = plan.make_units(study, now, data)
        plan.check_arms(lab, study, units,
                        Asker(study, now, lambda unit: False))
        Store.create(out, study, now, units, plan.versions())
    with Store.resume(out, study) as store:
        plan.check_same_models(store.models(), now, out)
        _run_pending(lab, study, store, concurrency, progress)


def with_all_models(lab: Any, study: Study) -> Study:
    """A study that names no models is about all that are ready."""
    ready = [model.name for model in lab.models()
             if model.state == type(model).READY]
    if not ready:
        raise StudyError("the server has no model that is ready")
    return dataclasses.replace(study, models=tuple(
        ModelEntry(name) for name in sorted(ready)))


def _run_pending(lab: Any, study: Study, store: Store, concurrency: int,
                 progress: Callable[[Estimate], None] | None) -> None:
    pending = list(store.units(pending=True))
    asker = Asker(study, store.models(), _keeps_norms(study, store))
    estimate = Estimate(store, pending)
    if progress:
        progress(estimate)
    results = lab.map(pending, asker, concurrency=concurrency)
    try:
        for unit, result in zip(pending, results):
            if result.error is not None:
                raise _failure(unit, result.error)
            store.add(unit, result.value)
            estimate.done(unit)
            if progress:
                progress(estimate)
    finally:
        results.close()


def _failure(unit: Unit, error: BaseException) -> BaseException:
    if not isinstance(error, QkscopeError):
        return error
    return StudyError(f"model {unit.model}, task {unit.task}, item "
                      f"{unit.item.id}: {error}; run the same command to go on")


def _keeps_norms(study: Study, store: Store) -> Callable[[Unit], bool]:
    """The first prompts of each model keep their norms."""
    places: dict[str, list[str]] = {}
    for unit in store.units():
        places.setdefault(unit.model, []).append(unit.key)
    kept = {key for keys in places.values()
            for key in keys[:study.keep_norms]}
    return lambda unit: unit.key in kept


class Estimate:
    """How far a run is, and when it ends. Units cost by the length of their
    prompts, since a run's tasks differ much."""

    def __init__(self, store: Store, pending: list[Unit]) -> None:
        self.units_done, self.units = store.counts()
        self.task = ""
        self._start = time.monotonic()
        self._left = sum(map(_cost, pending))
        self._cost_done = 0.0

    def done(self, unit: Unit) -> None:
        self.units_done += 1
        self.task = f"{unit.model}, {unit.task}"
        self._left -= _cost(unit)
        self._cost_done += _cost(unit)

    @property
    def seconds_left(self) -> float | None:
        """None before the first unit is done."""
        if self._cost_done == 0:
            return None
        spent = time.monotonic() - self._start
        return max(0.0, spent * self._left / self._cost_done)


def _cost(unit: Unit) -> float:
    return 100 + len(unit.item.question)
