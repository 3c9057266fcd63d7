"""From an operation to the task that it is one run of. Tasks that work on relations and sessions are made of their
options alone; one that another domain carries out, as backups do a Restore, is made by what the composition root hands
in."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pgtend.api.postgresoperation import OperationSpec
from pgtend.api.tasks import options_of
from pgtend.gate.classes import TaskType
from pgtend.kube.index import Record
from pgtend.tasks.protocol import Task
from pgtend.tasks.registry import task as task_of
from pgtend.tasks.registry import type_of

Maker = Callable[[Record, OperationSpec], Task]


class Asking:
    def __init__(self, makers: Mapping[TaskType, Maker]) -> None:
        self._makers = makers

    def task(self, record: Record, spec: OperationSpec) -> Task:
        type_ = type_of(spec.type)
        if (make := self._makers.get(type_)) is not None:
            return make(record, spec)
        options = spec.terminate_queries if type_ is TaskType.TERMINATE_QUERIES else options_of(spec, spec.type)
        return task_of(type_, options)
