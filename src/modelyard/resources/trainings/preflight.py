"""What can be known to be wrong with a training before anything is stored: all of it at once, each by its field.

The checks run side by side, each with a deadline, since an object store elsewhere may be slow or away. A request whose form is wrong already
is looked at too, as far as it can be read, so that nobody has to mend one field to hear of the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from modelyard.kit.errors import Fault, Invalid, NotFound
from modelyard.resources.experiments.errors import ExperimentNotUsable, ExperimentQuotaExceeded
from modelyard.resources.experiments.service import Experiments
from modelyard.resources.flavors.errors import UnknownFlavor
from modelyard.resources.flavors.model import Flavor
from modelyard.resources.flavors.service import Flavors
from modelyard.resources.images.catalog import CatalogImage
from modelyard.resources.images.service import Images
from modelyard.resources.projects.model import Caller, Project
from modelyard.resources.snapshots.errors import SnapshotFault
from modelyard.resources.snapshots.service import Snapshots
from modelyard.resources.storages.errors import FileMissing, StoragePathFault
from modelyard.resources.storages.service import Storages
from modelyard.resources.trainings.launch import torchrun_faults
from modelyard.resources.trainings.schemas import TrainingCreate, TrainingDraft
from modelyard.resources.workloads.errors import NeverFits
from modelyard.resources.workloads.service import Workloads

_GROUP = "TRAINING"


@dataclass(frozen=True, slots=True)
class Found:
    """What the checks have found: the image and the instance type where they are known, and every fault."""

    image: CatalogImage | None
    flavor: Flavor | None
    faults: Sequence[Fault]

    def chosen(self) -> tuple[CatalogImage, Flavor]:
        """Image and instance type of a request without fault. Raises `Invalid` with all faults."""
        if self.faults or self.image is None or self.flavor is None:
            raise Invalid(self.faults)
        return self.image, self.flavor


class Preflight:
    """Looks at a request as the account that the instance will act as.

    Args:
        deadline_seconds: for each look at a path; one that takes longer is a fault of its field.
    """

    def __init__(
        self,
        experiments: Experiments,
        images: Images,
        flavors: Flavors,
        storages: Storages,
        workloads: Workloads,
        snapshots: Snapshots,
        *,
        deadline_seconds: float,
    ) -> None:
        self._experiments = experiments
        self._images = images
        self._flavors = flavors
        self._storages = storages
        self._workloads = workloads
        self._snapshots = snapshots
        self._deadline_seconds = deadline_seconds

    async def look(self, caller: Caller, draft: TrainingDraft) -> Found:
        """All that is wrong with the fields that could be read, in the order of the request's fields."""
        request, wrong = draft.request, draft.wrong
        faults: list[Fault] = []
        image = None if "imageId" in wrong else self._image(request, faults)
        flavor = None if "flavorId" in wrong else self._flavor(request, faults)
        faults += _contradictions(draft, image, flavor)
        looks: list[Awaitable[Sequence[Fault]]] = [self._look_at_experiment(caller, draft)]
        if flavor is not None and "instanceCount" not in wrong:
            looks.append(self._look_at_room(flavor, request.instance_count))
        looks += self._looks_at_paths(caller.project, draft)
        for seen in await asyncio.gather(*looks):
            faults += seen
        return Found(image, flavor, faults)

    def _image(self, request: TrainingCreate, faults: list[Fault]) -> CatalogImage | None:
        try:
            return self._images.get_for(_GROUP, request.image_id)
        except Invalid as unfit:
            faults.extend(unfit.faults)
            return None

    def _flavor(self, request: TrainingCreate, faults: list[Fault]) -> Flavor | None:
        try:
            return self._flavors.get(request.flavor_id)
        except UnknownFlavor as unknown:
            faults.extend(unknown.faults)
            return None

    async def _look_at_experiment(self, caller: Caller, draft: TrainingDraft) -> Sequence[Fault]:
        request = draft.request
        if request.experiment_id is not None and "experimentId" not in draft.wrong:
            try:
                await self._experiments.check_usable(caller, request.experiment_id)
            except (NotFound, ExperimentNotUsable) as fault:
                return [Fault("experimentId", fault.message)]
        elif request.experiment_name is not None and "experimentName" not in draft.wrong:
            try:
                await self._experiments.check_name_usable(caller, request.experiment_name)
            except (ExperimentNotUsable, ExperimentQuotaExceeded) as fault:
                return [Fault("experimentName", fault.message)]
        return ()

    async def _look_at_room(self, flavor: Flavor, instance_count: int) -> Sequence[Fault]:
        try:
            await self._workloads.check_ever_fits(flavor.vcpus, flavor.memory_bytes, flavor.gpus, instance_count)
        except NeverFits as never:
            return never.faults
        return ()

    def _looks_at_paths(self, project: Project, draft: TrainingDraft) -> list[Awaitable[Sequence[Fault]]]:
        request, wrong = draft.request, draft.wrong
        readable, writable = self._storages.check_readable, self._storages.check_writable
        looks: list[Awaitable[Sequence[Fault]]] = []

        def add(field: str, uri: str | None, look: Callable[[str], Awaitable[object]]) -> None:
            if uri and field not in wrong:
                looks.append(self._within_deadline(field, look(uri)))

        is_entry_point_good = "entryPoint" not in wrong and entry_point_fault(request.entry_point) is None
        must_contain = request.entry_point if is_entry_point_good else None
        if request.algorithm_id is None:
            find = self._snapshots.find
            add(
                "sourceSnapshotId",
                request.source_snapshot_id,
                lambda snapshot_id: find(project, snapshot_id, must_contain=must_contain),
            )
            add(
                "sourceDirUri",
                None if request.source_snapshot_id else request.source_dir_uri,
                lambda uri: readable(project, uri, must_contain=must_contain),
            )
        for index, dataset in draft.datasets:
            add(f"datasetList[{index}].dataUri", dataset.data_uri, lambda uri: readable(project, uri))
        add("checkPointInputUri", request.check_point_input_uri, lambda uri: readable(project, uri))
        add("checkPointUploadUri", request.check_point_upload_uri, lambda uri: writable(project, uri))
        add("modelUploadUri", request.model_upload_uri, lambda uri: writable(project, uri))
        return looks

    async def _within_deadline(self, field: str, look: Awaitable[object]) -> Sequence[Fault]:
        try:
            async with asyncio.timeout(self._deadline_seconds):
                await look
        except FileMissing as missing:
            return [Fault("entryPoint", missing.message)]
        except (StoragePathFault, SnapshotFault) as fault:
            return [Fault(field, fault.message)]
        except TimeoutError:
            seconds = f"{self._deadline_seconds:g}"
            return [
                Fault(field, f"could not be looked at within {seconds} s; see whether the store answers, and try again")
            ]
        return ()


def entry_point_fault(entry_point: str | None) -> str | None:
    """What is wrong with an entry point as a path, as a sentence, or None."""
    if not entry_point:
        return "must not be empty; name the file in sourceDirUri at which the training begins"
    parts = entry_point.split("/")
    if entry_point.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\\" in entry_point:
        return "must be the path of a file below sourceDirUri, without '..' and not absolute"
    return "must not contain control characters" if any(ord(character) < 32 for character in entry_point) else None


def _contradictions(draft: TrainingDraft, image: CatalogImage | None, flavor: Flavor | None) -> list[Fault]:
    """What the request alone tells, beside the form of its fields."""
    request, wrong = draft.request, draft.wrong
    faults: list[Fault] = []
    if image is not None and flavor is not None and image.core_type != flavor.core_type:
        message = f"the image is for {image.core_type}, the instance type '{flavor.name}' is {flavor.core_type}"
        faults.append(Fault("imageId", message))
    if request.algorithm_id is not None:
        message = "this platform has no built-in algorithms; give sourceDirUri and entryPoint"
        faults.append(Fault("algorithmId", message))
    else:
        has_source = request.source_dir_uri or request.source_snapshot_id
        if not has_source and not wrong & {"sourceDirUri", "sourceSnapshotId"}:
            faults.append(Fault("sourceDirUri", "must not be empty"))
        message = entry_point_fault(request.entry_point)
        if message is not None and "entryPoint" not in wrong:
            faults.append(Fault("entryPoint", message))
    if request.training_type_code != "NORMAL" and "trainingTypeCode" not in wrong:
        faults.append(Fault("trainingTypeCode", "only NORMAL is known"))
    if request.experiment_id is not None and request.experiment_name is not None:
        message = "choose an experiment by experimentId, or add one by experimentName, not both"
        faults.append(Fault("experimentName", message))
    if not wrong & {"useTorchrun", "nprocPerNode"}:
        faults.extend(torchrun_faults(request.use_torchrun, request.nproc_per_node, image, flavor))
    return faults
