"""Tables of endpoints, stages and the models on them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from modelyard.db.columns import Json, ResourceColumns, Table, Utc


class EndpointRow(ResourceColumns, Table):
    """An endpoint: a service of the gateway."""

    __tablename__ = "endpoints"
    __table_args__ = (Index("uq_endpoints_name", "project_id", "name", unique=True),)


class TrafficRow(Table):
    """From `since` on, an endpoint's requests went to these stages. Only ever added to, while the endpoint is there."""

    __tablename__ = "endpoint_traffic"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("endpoints.id", ondelete="CASCADE"))
    since: Mapped[datetime] = mapped_column(Utc)
    stages: Mapped[list[dict[str, Any]]] = mapped_column(Json)

    __table_args__ = (Index("ix_endpoint_traffic_since", "endpoint_id", "since"),)


class CallMarkRow(Table):
    """What the gateway's counters of a model on a stage said when they were last read: what they say more next time has happened since."""

    __tablename__ = "endpoint_call_marks"

    endpoint_model_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    counters: Mapped[list[Any]] = mapped_column(Json)


class CallBlockRow(Table):
    """Calls of a model on a stage in a row of equal spans of time, those without calls left out.

    Attributes:
        span_seconds: the length of a span.
        starts_at: the first span's begin, in seconds since 1970.
        content: the spans with calls (`call_blocks`).
    """

    __tablename__ = "endpoint_call_blocks"

    endpoint_model_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    span_seconds: Mapped[int] = mapped_column(primary_key=True)
    starts_at: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    endpoint_id: Mapped[str] = mapped_column(String(36))
    stage_id: Mapped[str] = mapped_column(String(36))
    content: Mapped[bytes] = mapped_column(LargeBinary)

    __table_args__ = (
        Index("ix_endpoint_call_blocks_endpoint", "endpoint_id", "span_seconds", "starts_at"),
        Index("ix_endpoint_call_blocks_age", "span_seconds", "starts_at"),
    )


class ApiKeyRow(Table):
    """An API key of an endpoint, good on all its stages that ask for keys. The key itself is not kept.

    Attributes:
        id: the part of the key that is no secret.
        digest: of the part that is (`opening.mint_key`).
        gateway_count: what the gateway's counters said of it when they were last read.
    """

    __tablename__ = "endpoint_api_keys"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("endpoints.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64))
    rate_limit: Mapped[dict[str, Any] | None] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(Utc)
    created_by: Mapped[str | None] = mapped_column(String(128))
    last_used_at: Mapped[datetime | None] = mapped_column(Utc)
    calls_count: Mapped[int] = mapped_column(BigInteger, default=0)
    gateway_count: Mapped[int] = mapped_column(BigInteger, default=0)

    __table_args__ = (Index("uq_endpoint_api_keys_name", "endpoint_id", "name", unique=True),)


class StageRow(ResourceColumns, Table):
    """A stage of an endpoint."""

    __tablename__ = "endpoint_stages"

    endpoint_id: Mapped[str] = mapped_column(ForeignKey("endpoints.id"), index=True)
    is_default: Mapped[bool] = mapped_column(default=False)
    is_scaled: Mapped[bool] = mapped_column(default=False, index=True)

    __table_args__ = (Index("uq_endpoint_stages_name", "endpoint_id", "name", unique=True),)


class EndpointModelRow(ResourceColumns, Table):
    """A model on a stage. Its id is that of the workload that serves it."""

    __tablename__ = "endpoint_models"

    endpoint_id: Mapped[str] = mapped_column(ForeignKey("endpoints.id"), index=True)
    stage_id: Mapped[str] = mapped_column(ForeignKey("endpoint_stages.id"), index=True)
    model_id: Mapped[str] = mapped_column(String(36), index=True)
