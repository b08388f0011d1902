"""Use cases of TensorBoards: have one started for whoever looks, tell how it is, stop it."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.transitions import born, move
from modelyard.control.work import enqueue
from modelyard.db.engine import Database
from modelyard.kit.clock import Clock, utc_now
from modelyard.kit.errors import NotFound
from modelyard.kit.ids import new_id
from modelyard.resources.experiments.service import Experiments
from modelyard.resources.projects.model import Caller
from modelyard.resources.sessions.model import Opening, Target
from modelyard.resources.sessions.origins import Origins
from modelyard.resources.tensorboards import repository
from modelyard.resources.tensorboards.lifecycle import LIFECYCLE, TensorBoardState
from modelyard.resources.tensorboards.model import KIND, Owner, OwnerKind
from modelyard.resources.tensorboards.schemas import TensorBoardOut
from modelyard.resources.tensorboards.table import TensorBoardRow
from modelyard.resources.trainings.service import Trainings

_USED_EVERY = timedelta(minutes=1)


class TensorBoards:
    """TensorBoards of trainings and experiments. The record of one is there while it is wanted; its address is good for ever."""

    def __init__(
        self,
        database: Database,
        trainings: Trainings,
        experiments: Experiments,
        origins: Origins,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._trainings = trainings
        self._experiments = experiments
        self._origins = origins
        self._clock = clock

    async def find_owner(self, id: str, kind: OwnerKind | None = None) -> Owner | None:
        """The training or experiment of this id, whatever its project."""
        if kind is not OwnerKind.EXPERIMENT:
            found = await self._trainings.whereabouts(id)
            if found is not None:
                project_id, name, experiment_id = found
                return Owner(
                    kind=OwnerKind.TRAINING, id=id, project_id=project_id, name=name, experiment_id=experiment_id
                )
        if kind is not OwnerKind.TRAINING:
            place = await self._experiments.whereabouts(id)
            if place is not None:
                return Owner(kind=OwnerKind.EXPERIMENT, id=id, project_id=place[0], name=place[1], experiment_id=id)
        return None

    async def start(self, caller: Caller, kind: OwnerKind, owner_id: str) -> TensorBoardOut:
        """Have it run; asking again is fine, and tells how far it is.

        One that has failed says so once; who asks again after that has it started anew. Raises `NotFound`.
        """
        owner = await self._owner(caller, kind, owner_id)
        found = self._out(owner, await self._want(owner, caller.actor))
        if found.tensorboard_status_code == TensorBoardState.FAILED:
            await self._clear(owner, caller.actor)
        return found

    async def get(self, caller: Caller, kind: OwnerKind, owner_id: str) -> TensorBoardOut:
        """How it is. Raises `NotFound` when there is no such training or experiment."""
        owner = await self._owner(caller, kind, owner_id)
        async with self._database.read() as session:
            row = await repository.by_owner(session, owner_id)
        return self._out(owner, row)

    async def stop(self, caller: Caller, kind: OwnerKind, owner_id: str) -> None:
        """Have it ended; one that does not run is fine. Raises `NotFound` when there is no such training or experiment."""
        await self._owner(caller, kind, owner_id)
        async with self._database.write() as session:
            await self.owner_goes(session, owner_id, actor=caller.actor)

    async def owner_goes(self, session: AsyncSession, owner_id: str, *, actor: str = "controller") -> None:
        """End the TensorBoard of a training or experiment that is being deleted, as part of the caller's transaction."""
        row = await repository.by_owner(session, owner_id)
        if row is not None:
            await let_go(session, row, "STOP_REQUESTED", actor=actor)

    async def find_target(self, id: str) -> Target | None:
        """See `Openable`."""
        owner = await self.find_owner(id)
        return None if owner is None else Target(KIND, id, owner.project_id, owner.title)

    async def open_target(self, target: Target, actor: str) -> Opening:
        """See `Openable`. One that has failed says so once; who asks again after that has it started anew."""
        owner = await self.find_owner(target.id)
        if owner is None:
            return Opening(is_ready=False, message="It was deleted just now.")
        row = await self._want(owner, actor)
        match TensorBoardState(row.state):
            case TensorBoardState.ACTIVE:
                return Opening(is_ready=True)
            case TensorBoardState.FAILED:
                await self._clear(owner, actor)
                return Opening(is_ready=False, message=row.message or "It could not be started.")
            case _:
                return Opening(is_ready=False, is_coming=True, message=row.message or "")

    async def note_use(self, id: str) -> None:
        """Somebody looks at it."""
        now = self._clock()
        async with self._database.write() as session:
            row = await repository.by_owner(session, id)
            if row is not None and now - row.used_at > _USED_EVERY:
                row.used_at = now

    def address(self, owner_id: str) -> str:
        """Where it is reached: always the same."""
        return self._origins.url(KIND, owner_id)

    async def _owner(self, caller: Caller, kind: OwnerKind, owner_id: str) -> Owner:
        owner = await self.find_owner(owner_id, kind)
        if owner is None or owner.project_id != caller.project.id:
            raise NotFound(kind.value, owner_id)
        return owner

    async def _clear(self, owner: Owner, actor: str) -> None:
        """Take away one that has failed, so that the next who asks gets another."""
        async with self._database.write() as session:
            await self.owner_goes(session, owner.id, actor=actor)

    async def _want(self, owner: Owner, actor: str) -> TensorBoardRow:
        try:
            return await self._ensure(owner, actor)
        except IntegrityError:  # two who look at the same moment, on two servers
            return await self._ensure(owner, actor)

    async def _ensure(self, owner: Owner, actor: str) -> TensorBoardRow:
        now = self._clock()
        async with self._database.write() as session:
            row = await repository.by_owner(session, owner.id)
            if row is None:
                row = _new_row(owner, actor, now)
                born(session, LIFECYCLE, row, actor=actor)
                session.add(row)
                await enqueue(session, KIND, row.id)
            elif now - row.used_at > _USED_EVERY:
                row.used_at = now
        return row

    def _out(self, owner: Owner, row: TensorBoardRow | None) -> TensorBoardOut:
        return TensorBoardOut(
            owner_id=owner.id,
            tensorboard_status_code=row.state if row is not None else TensorBoardState.STOPPED.value,
            status_message=row.message if row is not None else None,
            access_uri=self.address(owner.id),
        )


async def let_go(session: AsyncSession, row: TensorBoardRow, reason: str, *, actor: str) -> None:
    """Have it ended, as part of the caller's transaction."""
    if row.desired == "delete":
        return
    row.desired = "delete"
    row.generation += 1
    message = "It is being ended; opening it starts it again."
    move(session, LIFECYCLE, row, TensorBoardState.STOPPING, reason=reason, message=message, actor=actor)
    await enqueue(session, KIND, row.id)


def _new_row(owner: Owner, actor: str, now: datetime) -> TensorBoardRow:
    return TensorBoardRow(
        id=new_id(),
        project_id=owner.project_id,
        name=owner.name,
        spec=owner.model_dump(mode="json"),
        status={},
        tags=[],
        desired="run",
        state=LIFECYCLE.initial.value,
        generation=1,
        created_by=actor[:64],
        created_at=now,
        updated_at=now,
        owner_id=owner.id,
        used_at=now,
    )
