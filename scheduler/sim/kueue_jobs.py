"""The jobs of a scenario from Kueue's workloads: the sections `running` and `jobs`.

Owns which workloads run, wait or are left out, their order, and how pod sets become one gang. Does not own reading
(kueue_workloads.py) or quotas (kueue_tree.py). A scenario's gang has equal replicas: pod sets that ask for the same become one gang;
others become one replica that asks for the sum, which quota counts alike. Time 0 is the latest moment that any workload tells of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from scheduler.sim import kueue_pods, kueue_quantity, units
from scheduler.sim.kueue_documents import Note
from scheduler.sim.kueue_objects import Flavor, LocalQueue, Queue
from scheduler.sim.kueue_quantity import Unit
from scheduler.sim.kueue_tree import CPU, MEMORY, QuotaTree, model_of
from scheduler.sim.kueue_workloads import PodSet, Workload

DAY_SECONDS = 86_400
MILLISECONDS_PER_SECOND = 1_000
_NOTHING = Fraction(0)


@dataclass(frozen=True, slots=True)
class Gang:
    """What one job asks for, per replica and in our units. `models` is empty for a job without GPUs."""

    replicas: int
    gpu: int
    cpu: int
    memory: int
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Jobs:
    """The sections and the gangs in them."""

    running: list[dict[str, Any]]
    queued: list[dict[str, Any]]
    running_gangs: list[Gang]
    queued_gangs: list[Gang]


@dataclass(frozen=True, slots=True)
class Admission:
    """What decides about workloads beside their own fields."""

    queues: Mapping[str, Queue]
    local_queues: Mapping[tuple[str, str], LocalQueue]
    flavors: Mapping[str, Flavor]
    classes: Mapping[tuple[str, str], int]
    excluded_prefixes: tuple[str, ...]
    gpu_resource: str


class LeftOutError(Exception):
    """A workload cannot be said in a scenario: the path of the field and why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(reason)
        self.path = path
        self.reason = reason


def build(workloads: Sequence[Workload], tree: QuotaTree, admission: Admission, notes: list[Note]) -> Jobs:
    """Return the jobs by creation, then name."""
    return _Builder(workloads, tree, admission, notes).build()


class _Builder:
    """One conversion: its moment and its names."""

    def __init__(self, workloads: Sequence[Workload], tree: QuotaTree, admission: Admission, notes: list[Note]) -> None:
        self.tree = tree
        self.admission = admission
        self.notes = notes
        self.now_ms = max((each.newest_ms for each in workloads if each.newest_ms is not None), default=0)
        self.workloads = sorted(workloads, key=lambda each: (self._created_ms(each), each.name, each.namespace))
        self.names = Counter(each.name for each in workloads)

    def _created_ms(self, workload: Workload) -> int:
        return self.now_ms if workload.created_ms is None else workload.created_ms

    def build(self) -> Jobs:
        jobs = Jobs([], [], [], [])
        without_limit = 0
        for workload in self.workloads:
            try:
                if workload.is_finished:
                    raise LeftOutError("status.conditions", "it has finished")
                if not workload.is_active:
                    raise LeftOutError("spec.active", "it is not active: Kueue admits it no more")
                self._add(workload, jobs)
            except LeftOutError as problem:
                held = ", and the quota that it holds counts as free" if workload.holds_quota else ""
                self.notes.append(Note(workload.source, problem.path, f"the workload is left out{held}: {problem.reason}"))
                continue
            without_limit += workload.limit_seconds is None
        if without_limit:
            reason = f"{without_limit} of the workloads name none: they get a day from now; run is not known and equals the limit"
            self.notes.append(Note(None, "maximumExecutionTimeSeconds", reason))
        return jobs

    def _add(self, workload: Workload, jobs: Jobs) -> None:
        if workload.holds_quota:
            queue = self._queue(workload.cluster_queue or "", "status.admission.clusterQueue")
            if queue.stop == "drain":
                raise LeftOutError("status.admission", f"ClusterQueue {queue.name} is drained, so it is being evicted")
            entry = self._entry(workload, queue.name) | self._running_times(workload)
            gangs = self._by_flavor(workload, queue)
            for suffix, gang in gangs.items():
                name = entry["id"] if len(gangs) == 1 else _id(f"{entry['id']}:{suffix}")
                jobs.running.append({**entry, "id": name} | self._asked(gang))
                jobs.running_gangs.append(gang)
            return
        queue = self._waits_in(workload)
        gang = self._gang(workload, [part for part in workload.pod_sets if part.count], queue)
        jobs.queued.append(self._entry(workload, queue.name) | self._queued_times(workload) | self._asked(gang))
        jobs.queued_gangs.append(gang)

    def _queue(self, name: str, path: str) -> Queue:
        found = self.admission.queues.get(name)
        if found is None:
            raise LeftOutError(path, f"there is no ClusterQueue {name} in the files")
        return found

    def _waits_in(self, workload: Workload) -> Queue:
        if workload.local_queue is None:
            raise LeftOutError("spec.queueName", "it is in no queue")
        local = self.admission.local_queues.get((workload.namespace, workload.local_queue))
        if local is None:
            raise LeftOutError("spec.queueName", f"there is no LocalQueue {workload.local_queue} in namespace {workload.namespace}")
        if local.stop != "none":
            raise LeftOutError("spec.queueName", f"LocalQueue {workload.local_queue} is stopped")
        queue = self._queue(local.cluster_queue, "spec.queueName")
        if queue.stop != "none":
            raise LeftOutError("spec.queueName", f"ClusterQueue {queue.name} is stopped")
        return queue

    def _entry(self, workload: Workload, tenant: str) -> dict[str, Any]:
        name = workload.name if self.names[workload.name] == 1 else f"{workload.namespace}/{workload.name}"
        entry: dict[str, Any] = {"id": _id(name), "tenant": tenant}
        priority = workload.priority
        if priority is None and workload.priority_class is not None:
            priority = self.admission.classes.get(workload.priority_class)
            if priority is None:
                kind, class_name = workload.priority_class
                self.notes.append(Note(workload.source, "spec", f"there is no {kind} {class_name} in the files: priority 0"))
        if priority:
            entry["priority"] = priority
        return entry

    def _running_times(self, workload: Workload) -> dict[str, Any]:
        started_ms = next(time for time in (workload.reserved_ms, workload.created_ms, self.now_ms) if time is not None)
        elapsed_ms = self.now_ms - started_ms
        times = {"started": _seconds(-elapsed_ms)}
        if workload.created_ms is not None and workload.created_ms < started_ms:
            times["at"] = _seconds(workload.created_ms - self.now_ms)
        if workload.limit_seconds is not None:
            limit_seconds = workload.limit_seconds - workload.spent_seconds
            if limit_seconds * MILLISECONDS_PER_SECOND <= elapsed_ms:
                raise LeftOutError("spec.maximumExecutionTimeSeconds", "its time is over, so it is being evicted")
            times["limit"] = limit_seconds
        elif elapsed_ms:
            times["limit"] = _seconds(elapsed_ms + DAY_SECONDS * MILLISECONDS_PER_SECOND)
        return times

    def _queued_times(self, workload: Workload) -> dict[str, Any]:
        times: dict[str, Any] = {}
        if self._created_ms(workload) != self.now_ms:
            times["at"] = _seconds(self._created_ms(workload) - self.now_ms)
        if workload.limit_seconds is not None:
            times["limit"] = workload.limit_seconds - workload.spent_seconds
            if times["limit"] <= 0:
                raise LeftOutError("spec.maximumExecutionTimeSeconds", "earlier attempts have used up its time")
        return times

    def _by_flavor(self, workload: Workload, queue: Queue) -> dict[str, Gang]:
        """Return one gang per GPU flavor that the workload holds: a job of a scenario holds one model."""
        parts: dict[str, list[PodSet]] = {}
        for part in workload.pod_sets:
            if part.count:
                parts.setdefault(part.flavors.get(self.admission.gpu_resource, ""), []).append(part)
        with_gpus = [flavor for flavor in parts if flavor]
        if with_gpus and "" in parts:
            parts[with_gpus[0]] += parts.pop("")
        if len(parts) > 1:
            self.notes.append(Note(workload.source, "status.admission", f"it holds several flavors: it becomes {len(parts)} running jobs"))
        return {flavor: self._gang(workload, members, queue, flavor=flavor) for flavor, members in (parts or {"": []}).items()}

    def _gang(self, workload: Workload, parts: Sequence[PodSet], queue: Queue, *, flavor: str = "") -> Gang:
        asked = [(part.count, self._counted(workload, part, queue)) for part in parts]
        if not asked or not any(any(counts) for _, counts in asked):
            raise LeftOutError("spec.podSets", "it asks for no GPU, CPU or memory")
        if not any(counts[0] or counts[1] for _, counts in asked):
            raise LeftOutError("spec.podSets", "it asks for memory alone, and a job of a scenario needs GPUs or CPUs")
        models: tuple[str, ...] = ()
        if any(counts[0] for _, counts in asked):
            models = (model_of(flavor),) if flavor else self._models(parts, queue, is_running=workload.holds_quota)
        count = sum(count for count, _ in asked)
        total = [sum(number * counts[at] for number, counts in asked) for at in range(3)]
        gangs = [Gang(1, total[0], total[1], total[2], models)]
        if len({counts for _, counts in asked}) == 1:
            gangs.insert(0, Gang(count, *asked[0][1], models))
        for gang in gangs:
            if _can_be_said(gang):
                if gang.replicas != count:
                    reason = f"{count} pods become one replica that asks for their sum, because a gang has equal replicas of whole GPUs"
                    self.notes.append(Note(workload.source, "spec.podSets", reason))
                return gang
        raise LeftOutError("spec.podSets", f"no replica of a scenario can ask for {_described(gangs[0])}")

    def _counted(self, workload: Workload, part: PodSet, queue: Queue) -> tuple[int, int, int]:
        """Return GPUs, CPUs and memory of one pod in our units; everything else that it asks for is named."""
        prefixes = (*self.admission.excluded_prefixes, *queue.excluded_prefixes)
        asked = {name: amount for name, amount in part.requests.items() if amount and not (prefixes and name.startswith(prefixes))}
        covered = {resource for group in queue.groups for resource in group.resources}
        gpu_resource = self.admission.gpu_resource
        for name in asked:
            if name not in {gpu_resource, CPU, MEMORY, "pods"}:
                self.notes.append(Note(workload.source, "spec.podSets", f"{name} is left out: a scenario has GPUs, CPUs and memory"))
            elif name not in covered and name != "pods":
                self.notes.append(Note(queue.source, "spec.resourceGroups", self._uncovered_reason(name)))
        counted_as = {CPU: kueue_quantity.CPU, MEMORY: kueue_quantity.MEMORY}
        cpu, memory = (unit.count(asked.get(name, _NOTHING)) if name != gpu_resource else 0 for name, unit in counted_as.items())
        return kueue_quantity.GPU.count(asked.get(gpu_resource, _NOTHING)), cpu, memory

    def _uncovered_reason(self, resource: str) -> str:
        if resource == self.admission.gpu_resource:
            return f"workloads ask for {resource}, which it does not cover: Kueue admits none of them, and neither does the scenario"
        return (
            f"workloads ask for {resource}, which it does not cover: unless Kueue is told to ignore the resource, it admits none of them; "
            "the scenario does not limit it"
        )

    def _models(self, parts: Sequence[PodSet], queue: Queue, *, is_running: bool) -> tuple[str, ...]:
        """Return the models that all pods with GPUs may get, in the queue's order."""
        gpu_resource = self.admission.gpu_resource
        named = [name for name, amounts in self.tree.kept[queue.name].flavors.items() if gpu_resource in amounts]
        if not named:
            if is_running or not self.tree.models:
                raise LeftOutError("spec.podSets", f"ClusterQueue {queue.name} has no flavor with quota of {gpu_resource}")
            return (next(iter(self.tree.models.values())),)  # any model says that it waits without permission
        flavors = {name: self.admission.flavors.get(name, Flavor(name)) for name in self.tree.kept[queue.name].flavors}
        asking = [part for part in parts if part.requests.get(gpu_resource)]
        fitting = [
            name for name in named if all(kueue_pods.matches(part.demands, flavors[name], list(flavors.values())) for part in asking)
        ]
        if not fitting:
            raise LeftOutError(
                "spec.podSets", f"no flavor of ClusterQueue {queue.name} matches the node selector, affinity and tolerations of its pods"
            )
        return tuple(self.tree.models[name] for name in fitting)

    def _asked(self, gang: Gang) -> dict[str, Any]:
        entry: dict[str, Any] = {"replicas": gang.replicas} if gang.replicas > 1 else {}
        entry["gpus"] = kueue_quantity.GPU.number(gang.gpu)
        if gang.models:
            entry["gpu_model"] = gang.models[0] if len(gang.models) == 1 else list(gang.models)
        if gang.cpu:
            entry["cpus"] = kueue_quantity.CPU.number(gang.cpu)
        if gang.memory:
            entry["memory_gib"] = kueue_quantity.MEMORY.number(gang.memory)
        return entry


def _id(name: str) -> str:
    if len(name) > units.NAME_LENGTH_MAXIMUM:
        raise LeftOutError("metadata.name", f"its id would be longer than {units.NAME_LENGTH_MAXIMUM} characters")
    return name


def _can_be_said(gang: Gang) -> bool:
    amounts: list[tuple[int, Unit]] = [(gang.cpu, kueue_quantity.CPU), (gang.memory, kueue_quantity.MEMORY)]
    is_whole = gang.gpu % units.MILLI == 0 and gang.gpu <= units.GPUS_PER_REPLICA_MAXIMUM * units.MILLI
    if not (is_whole or gang.gpu < units.MILLI) or gang.replicas > units.REPLICAS_MAXIMUM:
        return False
    return all(unit.fits(count) for count, unit in amounts)


def _described(gang: Gang) -> str:
    return f"{gang.gpu / units.MILLI:g} GPUs, {gang.cpu / units.MILLI:g} CPUs and {gang.memory} bytes"


def _seconds(time_ms: int) -> int | float:
    return time_ms // MILLISECONDS_PER_SECOND if time_ms % MILLISECONDS_PER_SECOND == 0 else time_ms / MILLISECONDS_PER_SECOND
