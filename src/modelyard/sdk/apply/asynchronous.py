"""From a file to a plan, and from a plan to the platform.

A plan is made by looking alone. It says of each resource what would happen, and knows beforehand what can't be: a reference that leads nowhere,
or a difference in something that stays as it was made. Carrying it out goes in the order of dependence and may be repeated after any
failure: what is there already is left alone.

These are coroutines over an `AsyncClient`; `modelyard.sdk.apply.plan` has the same for a `Client`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

from modelyard.kit.errors import Fault
from modelyard.sdk.apply.manifest import Item, read_manifest
from modelyard.sdk.apply.seen import as_file, find, same
from modelyard.sdk.apply.steps import Action, Change, Plan, PlanBlocked, Step
from modelyard.sdk.client import AsyncGroups
from modelyard.sdk.errors import ManifestInvalid, NotFound, UnknownName

_UPDATABLE = frozenset({"description", "tags", "idle_stop_minutes"})


async def make_plan(client: AsyncGroups, text: str) -> Plan:
    """What a file would change. Raises `ManifestInvalid` with every fault of the file."""
    items = read_manifest(text)
    steps = [await _step(client, item) for item in items]
    faults = await _loose_ends(client, items)
    if faults:
        raise ManifestInvalid(faults)
    going = [step for step in steps if step.item.is_absent]
    return Plan([*(step for step in steps if not step.item.is_absent), *reversed(going)])


async def carry_out(
    client: AsyncGroups,
    plan: Plan,
    *,
    may_delete: bool = False,
    wait: bool = False,
    on_step: Callable[[Step, str], object] = lambda step, word: None,
    timeout_seconds: float | None = None,
) -> None:
    """Do what the plan says; `on_step` is told before and after each step.

    A model waits for the training in the same file that it is made from. Deletions are left out without `may_delete`. With `wait` it returns
    when all is ready (endpoints answer, trainings are COMPLETE). Raises `PlanBlocked` before anything is done, and what the steps raise.
    """
    blocked = plan.of(Action.BLOCKED)
    if blocked:
        raise PlanBlocked(blocked)
    for step in plan.of(Action.CREATE, Action.UPDATE):
        on_step(step, "waits for its training" if _awaited(step, plan) else step.action.value)
        for name in _awaited(step, plan):
            await client.trainings.wait(name, timeout_seconds=timeout_seconds)
        await _make(client, step)
        on_step(step, "done")
    for step in plan.of(Action.DELETE) if may_delete else ():
        on_step(step, "delete")
        await _take_away(client, step.item, timeout_seconds)
        on_step(step, "done")
    if wait:
        for step in plan.of(Action.CREATE, Action.UPDATE, Action.KEEP):
            group = getattr(client, step.item.kind.section, None)
            if not step.item.is_absent and hasattr(group, "wait") and step.item.kind.section != "nas_volumes":
                await getattr(client, step.item.kind.section).wait(step.item.key, timeout_seconds=timeout_seconds)
                on_step(step, "ready")


async def _step(client: AsyncGroups, item: Item) -> Step:
    resource = await find(client, item)
    if item.is_absent:
        return Step(item, Action.KEEP if resource is None else Action.DELETE)
    if resource is None:
        return Step(item, Action.CREATE)
    shown = as_file(resource, item.kind.section)
    changes = [
        Change(name, shown[name], wanted, is_fixed=not _may_change(client, item, name))
        for name, wanted in item.fields.items()
        if name in shown and not await same(client, name, wanted, shown[name])
    ]
    if any(change.is_fixed for change in changes):
        return Step(item, Action.BLOCKED, changes)
    return Step(item, Action.UPDATE if changes else Action.KEEP, changes)


def _may_change(client: AsyncGroups, item: Item, field: str) -> bool:
    if item.kind.section == "containers":
        return True
    update = getattr(getattr(client, item.kind.section), "update", None)
    return field in _UPDATABLE and update is not None and field in inspect.signature(update).parameters


async def _loose_ends(client: AsyncGroups, items: Sequence[Item]) -> list[Fault]:
    """References that lead nowhere: neither into the file nor to the platform."""
    staying = {(item.kind.section, item.name) for item in items if not item.is_absent}
    going = {(item.kind.section, item.name) for item in items if item.is_absent}
    faults: list[Fault] = []
    for item in items:
        for reference, section in item.kind.references.items() if not item.is_absent else ():
            for name in item.names_in(reference):
                if (section, name) in staying:
                    continue
                if (section, name) in going:
                    faults.append(Fault(f"{item.where}.{reference}", f"'{name}' is to be taken away by this same file"))
                    continue
                try:
                    await getattr(client, section).get(name)
                except (UnknownName, NotFound) as error:
                    faults.append(Fault(f"{item.where}.{reference}", f"{error}, and none in this file"))
    return faults


def _awaited(step: Step, plan: Plan) -> Sequence[str]:
    """Trainings that a model is made from and that may still be running."""
    if step.item.kind.section != "models" or step.action is not Action.CREATE:
        return ()
    listed = {each.item.name for each in plan.steps if each.item.kind.section == "trainings"}
    return [name for name in step.item.names_in("training") if name in listed]


async def _make(client: AsyncGroups, step: Step) -> None:
    item = step.item
    if item.kind.section == "containers":
        await client.storage.create_container(item.name)
        if item.fields:
            await client.storage.grant(item.name, **item.fields)
    elif step.action is Action.CREATE:
        await getattr(client, item.kind.section).create(item.name, **item.fields)
    else:
        changed = {change.field: change.wanted for change in step.changes}
        await getattr(client, item.kind.section).update(item.key, **changed)


async def _take_away(client: AsyncGroups, item: Item, timeout_seconds: float | None) -> None:
    if item.kind.section == "containers":
        await client.storage.delete(item.name)
        return
    await getattr(client, item.kind.section).delete(item.key, wait=True, timeout_seconds=timeout_seconds)
