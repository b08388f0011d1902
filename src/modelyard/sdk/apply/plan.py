"""Plans for ordinary programs: the coroutines of `modelyard.sdk.apply.asynchronous`, run to their end over a `Client`."""

from __future__ import annotations

from collections.abc import Callable

from modelyard.sdk.apply import asynchronous
from modelyard.sdk.apply.steps import Action, Change, Plan, PlanBlocked, Step
from modelyard.sdk.blocking import run_to_end
from modelyard.sdk.client import Client

__all__ = ["Action", "Change", "Plan", "PlanBlocked", "Step", "carry_out", "make_plan"]


def make_plan(client: Client, text: str) -> Plan:
    """What a file would change. Raises `ManifestInvalid` with every fault of the file."""
    return run_to_end(asynchronous.make_plan(Client.groups_of(client), text))


def carry_out(
    client: Client,
    plan: Plan,
    *,
    may_delete: bool = False,
    wait: bool = False,
    on_step: Callable[[Step, str], object] = lambda step, word: None,
    timeout_seconds: float | None = None,
) -> None:
    """Do what the plan says; see `modelyard.sdk.apply.asynchronous.carry_out`."""
    run_to_end(
        asynchronous.carry_out(
            Client.groups_of(client),
            plan,
            may_delete=may_delete,
            wait=wait,
            on_step=on_step,
            timeout_seconds=timeout_seconds,
        )
    )
