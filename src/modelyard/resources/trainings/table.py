"""Tables of trainings."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from modelyard.db.columns import ResourceColumns, Table
from modelyard.resources.trainings.terms import MAX_TERM_CHARACTERS

_IS_THERE = text("desired <> 'delete'")


# Words that begin alike must stand side by side, whatever the database's language.
_TERM = String(MAX_TERM_CHARACTERS).with_variant(String(MAX_TERM_CHARACTERS, collation="C"), "postgresql")


def _list_index(name: str, *columns: str) -> Index:
    """An index that gives rows of the list, without those that are being deleted."""
    return Index(name, *columns, sqlite_where=_IS_THERE, postgresql_where=_IS_THERE)


class TrainingRow(ResourceColumns, Table):
    """A training.

    Each order and each filter of the list has its index, which ends with the id: within one value rows come newest first without being
    sorted. The first also holds the name, so that looking for a part of a name reads no rows.
    """

    __tablename__ = "trainings"

    project_id: Mapped[str] = mapped_column(String(36))
    state: Mapped[str] = mapped_column(String(48))
    experiment_id: Mapped[str | None] = mapped_column(String(36))
    image_id: Mapped[str] = mapped_column(String(64))
    flavor_id: Mapped[str] = mapped_column(String(64))

    __table_args__ = (
        _list_index("ix_trainings_newest", "project_id", "id", "name"),
        _list_index("ix_trainings_name", "project_id", "name", "id"),
        _list_index("ix_trainings_updated", "project_id", "updated_at", "id"),
        _list_index("ix_trainings_state", "project_id", "state", "id"),
        _list_index("ix_trainings_experiment", "experiment_id", "project_id", "id"),
        _list_index("ix_trainings_image", "project_id", "image_id", "id"),
        _list_index("ix_trainings_flavor", "project_id", "flavor_id", "id"),
    )


class TermRow(Table):
    """A term that a training is found by; see `terms`. Goes with the training."""

    __tablename__ = "training_terms"

    project_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    term: Mapped[str] = mapped_column(_TERM, primary_key=True)
    training_id: Mapped[str] = mapped_column(
        String(36), ForeignKey("trainings.id", ondelete="CASCADE"), primary_key=True
    )

    __table_args__ = (
        Index("ix_training_terms_training", "training_id", "term"),
        {"sqlite_with_rowid": False},
    )
