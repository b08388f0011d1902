"""Tables of trainings."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column, validates

from modelyard.db.columns import ResourceColumns, Table
from modelyard.resources.trainings.terms import MAX_TERM_CHARACTERS, folded

COVERING = "ix_trainings_list"
"""The index that holds all that a list filters and sorts by, but for terms."""
_COVERED = (
    "project_id",
    "id",
    "state",
    "image_id",
    "flavor_id",
    "experiment_id",
    "updated_at",
    "name",
    "name_folded",
)
_MAX_FOLDED_CHARACTERS = 512  # some letters become eighteen; an entry of an index has little room


def _plain(length: int) -> String:
    """Text that is compared letter by letter, whatever the database's language: what begins alike stands side by side."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


def _list_index(name: str, *columns: str) -> Index:
    """An index that gives rows of the list. `desired` is in it, since a list leaves out what is being deleted.

    It is no condition of the index: SQLite would read each row to see whether it fulfils it.
    """
    return Index(name, *columns, "desired")


class TrainingRow(ResourceColumns, Table):
    """A training.

    Each order and each filter of the list has its index, which ends with the id: within one value rows come newest first without being
    sorted. The covering one tells of every row whether filters together let it pass: walking along all of it reads no rows.

    Attributes:
        name_folded: the name, as a part of it is looked for.
    """

    __tablename__ = "trainings"

    project_id: Mapped[str] = mapped_column(String(36))
    name_folded: Mapped[str] = mapped_column(_plain(_MAX_FOLDED_CHARACTERS))
    state: Mapped[str] = mapped_column(String(48))
    experiment_id: Mapped[str | None] = mapped_column(String(36))
    image_id: Mapped[str] = mapped_column(String(64))
    flavor_id: Mapped[str] = mapped_column(String(64))

    __table_args__ = (
        _list_index(COVERING, *_COVERED),
        _list_index("ix_trainings_name", "project_id", "name", "id"),
        _list_index("ix_trainings_updated", "project_id", "updated_at", "id"),
        _list_index("ix_trainings_state", "project_id", "state", "id"),
        _list_index("ix_trainings_experiment", "experiment_id", "project_id", "id"),
        _list_index("ix_trainings_image", "project_id", "image_id", "id"),
        _list_index("ix_trainings_flavor", "project_id", "flavor_id", "id"),
    )

    @validates("name")
    def _fold(self, _key: str, name: str) -> str:
        self.name_folded = folded(name)[:_MAX_FOLDED_CHARACTERS]
        return name


class TermRow(Table):
    """A term that a training is found by; see `terms`. Goes with the training."""

    __tablename__ = "training_terms"

    project_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    term: Mapped[str] = mapped_column(_plain(MAX_TERM_CHARACTERS), primary_key=True)
    training_id: Mapped[str] = mapped_column(
        String(36), ForeignKey("trainings.id", ondelete="CASCADE"), primary_key=True
    )

    __table_args__ = (
        Index("ix_training_terms_training", "training_id", "term"),
        {"sqlite_with_rowid": False},
    )
