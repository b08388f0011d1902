"""Where a training's result comes from: digests of source, requirements, data and image, and who asked for it.

Pure. What the platform has kept itself (the source snapshot) counts; of the data, the run's own listing is taken, the first that is seen
and before the script could have said anything else, and never changed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from modelyard.resources.snapshots.model import Snapshot
from modelyard.resources.trainings.model import DataSeen, Provenance, TrainingSpec

SOURCE, REQUIREMENTS, DATASET = "source", "requirements", "dataset:"
"""Keys of the run's report: what it has listed."""

_DIGEST_LENGTH = 64


def begun(spec: TrainingSpec, started_by: str | None, image_digest: str, kept: Snapshot | str) -> Provenance:
    """What is known when a training begins. `kept`: the snapshot of its source, or why there is none."""
    first = Provenance(
        started_by=started_by,
        image_name=spec.image_name,
        image_digest=image_digest,
        datasets=tuple(DataSeen(name=dataset.name, uri=dataset.uri) for dataset in spec.datasets),
    )
    if isinstance(kept, str):
        return first.model_copy(update={"snapshot_note": kept})
    return first.model_copy(
        update={
            "source_digest": kept.digest,
            "source_snapshot_id": kept.id,
            "source_file_count": kept.file_count,
            "source_bytes": kept.size_bytes,
            "requirements_digest": kept.requirements_digest,
        }
    )


def with_inputs(known: Provenance | None, report: Mapping[str, Any]) -> Provenance | None:
    """What is known, with what the run says that it has listed (untrusted), unless that was taken before."""
    inputs = report.get("inputs")
    if known is None or known.is_complete or not isinstance(inputs, dict) or report.get("step") == "fetching":
        return known
    listed = cast(dict[str, Any], inputs)
    source = _seen(listed.get(SOURCE), "", "")
    requirements = _seen(listed.get(REQUIREMENTS), "", "")
    changes: dict[str, Any] = {
        "is_complete": True,
        "datasets": tuple(_seen(listed.get(DATASET + each.name), each.name, each.uri) for each in known.datasets),
    }
    if known.source_snapshot_id is None:
        changes |= {
            "source_listing_digest": source.listing_digest,
            "source_file_count": source.file_count,
            "source_bytes": source.size_bytes,
            "requirements_digest": requirements.listing_digest,
        }
    return known.model_copy(update=changes)


def _seen(said: object, name: str, uri: str) -> DataSeen:
    if not isinstance(said, dict):
        return DataSeen(name=name, uri=uri)
    words = cast(dict[str, Any], said)
    digest, count, size, note = (words.get(key) for key in ("digest", "files", "bytes", "note"))
    is_digest = isinstance(digest, str) and len(digest) == _DIGEST_LENGTH and not digest.strip("0123456789abcdef")
    return DataSeen(
        name=name,
        uri=uri,
        listing_digest=digest if is_digest else None,
        file_count=count if isinstance(count, int) else None,
        size_bytes=size if isinstance(size, int) else None,
        note=note[:200] if isinstance(note, str) else None,
    )
