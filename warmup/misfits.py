"""What of a schedule this ComfyUI cannot do: classes, files and ways of loading that it does not have, unknown groups.

A misfit is no failure of a run: no second try helps until ComfyUI or the schedule is another. So such an entry is out
from the moment the classes of ComfyUI are known, with its fault in the same words that `comfykeep check` has for it.
"""

from collections.abc import Iterable, Iterator, Mapping

from normalizer import Role, Schema
from warmup.catalogue import widgets
from warmup.faults import BadEntry, Complaint, Fault, nearest
from warmup.prepared import Prepared
from warmup.prompts import Preparation, Surroundings, prepare, unknown_group
from warmup.schedule import Planned, Schedule
from warmup.workflow_file import override


def check(schedule: Schedule, around: Surroundings) -> tuple[Fault, ...]:
    """Everything wrong with a schedule before this upstream: the file's own faults, unknown classes, models, groups."""
    faults = list(schedule.faults)
    for planned in schedule.entries:
        try:
            prepared = prepare(planned, around)
        except BadEntry as bad:
            complaints: Iterable[Complaint] = bad.complaints
        else:
            complaints = unknown_choices(planned, prepared, around.schema)
        faults.extend(complaint.at(str(schedule.path), planned.name) for complaint in complaints)
    return tuple(faults)


class Misfits:
    """The entries of the schedule in force that are out at the ComfyUI that answers, by name, with their faults."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._judged: tuple[Schema, Schedule, frozenset[str]] | None = None
        self.faults: Mapping[str, tuple[Fault, ...]] = {}

    def judge(self, schedule: Schedule, around: Surroundings) -> tuple[Fault, ...]:
        """Judge the schedule anew where it, ComfyUI's classes or the groups are others; the faults not known before.

        Of a group only the name is judged: what its models are also depends on what clients send meanwhile.
        """
        now = around.schema, schedule, frozenset(around.groups)
        known, self._judged = self._judged, now
        if known is not None and known[0] is now[0] and known[1] is now[1] and known[2] == now[2]:
            return ()
        before = {fault for faults in self.faults.values() for fault in faults}
        self.faults = {
            planned.name: tuple(complaint.at(str(schedule.path), planned.name) for complaint in complaints)
            for planned in schedule.entries
            if (complaints := self._complaints(planned, around))
        }
        return tuple(fault for faults in self.faults.values() for fault in faults if fault not in before)

    def _complaints(self, planned: Planned, around: Surroundings) -> tuple[Complaint, ...]:
        group = planned.entry.group
        if group is not None:
            return () if group in around.groups else (unknown_group(group, around),)
        prepared = self._prepared.get(planned, around, planned.entry.to)
        if isinstance(prepared, BadEntry):
            return prepared.complaints
        return unknown_choices(planned, prepared, around.schema)


def unknown_choices(planned: Planned, prepared: Preparation, schema: Schema) -> tuple[Complaint, ...]:
    """The files, and ways of loading them, that this ComfyUI does not offer."""
    return tuple(dict.fromkeys(_unknown_choices(planned, prepared, schema)))


def _unknown_choices(planned: Planned, prepared: Preparation, schema: Schema) -> Iterator[Complaint]:
    key = "inputs"
    nodes = [item for step in prepared.steps for item in step.prompt.items()]
    if planned.workflow is not None:
        key, nodes = "prompt", list(override(planned.workflow, planned.entry.set).items())
    for node_id, node in nodes:
        cls = schema.get(node["class_type"])
        if cls is None or cls.role is Role.NEITHER:
            continue
        for name, widget in widgets(schema, cls.name).items():
            value = node["inputs"].get(name)
            if widget.options is not None and isinstance(value, str) and value not in widget.options:
                where = f"node {node_id} ({cls.name}): {name} " if key == "prompt" else ""
                remedy = nearest(value, map(str, widget.options), "put the file where ComfyUI looks for it")
                full = f"inputs.{name}" if key == "inputs" else key
                yield Complaint(full, f"{where}{value!r} is not among what this ComfyUI offers", remedy)
