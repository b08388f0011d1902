"""The index of the own store, as tables.

`metadata` is handed to the migrations. Times are counts of 10 µs since 1970, the resolution of Swift's `X-Timestamp`. Names compare by
their bytes on every database (Swift's order), so listings are range scans of a primary key.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

# PostgreSQL would compare by the database's locale; "C" compares UTF-8 bytes, as SQLite does anyway.
_NAME = Text().with_variant(Text(collation="C"), "postgresql")

accounts = Table(
    "object_accounts",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("created_at", BigInteger, nullable=False),
    Column("headers", JSON, nullable=False),
)

containers = Table(
    "object_containers",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("account", _NAME, nullable=False),
    Column("name", _NAME, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
    Column("object_count", BigInteger, nullable=False),
    Column("bytes_used", BigInteger, nullable=False),
    Column("headers", JSON, nullable=False),
    Column("read_acl", Text, nullable=True),
    Column("write_acl", Text, nullable=True),
    Column("is_acl_set", Boolean, nullable=False),
    UniqueConstraint("account", "name", name="uq_object_containers_account_name"),
)

blobs = Table(
    "object_blobs",
    metadata,
    Column("key", String(36), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("reference_count", Integer, nullable=False),
)

objects = Table(
    "objects",
    metadata,
    Column("container_id", String(36), ForeignKey("object_containers.id"), primary_key=True),
    Column("name", _NAME, primary_key=True),
    Column("blob_key", String(36), ForeignKey("object_blobs.key"), nullable=True),
    Column("size", BigInteger, nullable=False),
    Column("stored_size", BigInteger, nullable=False),
    Column("etag", String(32), nullable=False),
    Column("content_type", Text, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
    Column("headers", JSON, nullable=False),
    Column("delete_at", BigInteger, nullable=True),
    Column("slo_etag", String(32), nullable=True),
    Index("ix_objects_delete_at", "delete_at"),
    Index("ix_objects_blob_key", "blob_key"),
)
