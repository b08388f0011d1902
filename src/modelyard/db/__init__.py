"""The record: engine and sessions, base columns, migrations."""
