"""What the first start makes: the admin, the project "default", and the credentials of both, which the home remembers."""

from __future__ import annotations

import secrets
from dataclasses import asdict

from modelyard.resources.projects.service import ProjectKeys, Projects, new_project_keys
from modelyard.resources.users.service import Users
from modelyard.server.credentials import ADMIN, SEALED
from modelyard.server.home import Home, seal, unseal

DEFAULT_PROJECT = "default"


async def ensure_first_project(home: Home, users: Users, projects: Projects) -> None:
    """The admin and the project "default", with the credentials that the home remembers."""
    known = unseal(home, SEALED)
    if known is None:
        # Sealed before they are stored: a crash in between stores these same ones at the next start.
        known = {"admin_password": secrets.token_urlsafe(18), **asdict(new_project_keys())}
        seal(home, SEALED, known)
    keys = ProjectKeys(**{name: value for name, value in known.items() if name != "admin_password"})
    admin = await users.ensure(ADMIN, known["admin_password"], is_admin=True)
    await projects.ensure(DEFAULT_PROJECT, keys, member_id=admin.id)
