"""The credentials of a home: made at the first start, shown by `modelyard credentials` ever after."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from typing import Any

from modelyard.resources.projects.service import ProjectKeys, Projects, new_project_keys
from modelyard.resources.users.service import Users
from modelyard.server.home import Home, HomeUnusable, seal, unseal
from modelyard.server.settings import Settings

_NAME = "credentials"
ADMIN = "admin"
DEFAULT_PROJECT = "default"


async def ensure_first_project(home: Home, users: Users, projects: Projects) -> None:
    """The admin and the project "default", with the credentials that the home remembers."""
    known = unseal(home, _NAME)
    if known is None:
        # Sealed before they are stored: a crash in between stores these same ones at the next start.
        known = {"admin_password": secrets.token_urlsafe(18), **asdict(new_project_keys())}
        seal(home, _NAME, known)
    keys = ProjectKeys(**{name: value for name, value in known.items() if name != "admin_password"})
    admin = await users.ensure(ADMIN, known["admin_password"], is_admin=True)
    await projects.ensure(DEFAULT_PROJECT, keys, member_id=admin.id)


def show_credentials(home: Home, settings: Settings) -> dict[str, Any]:
    """What a user needs to connect. Raises `HomeUnusable` before the first start."""
    known = unseal(home, _NAME)
    if known is None:
        raise HomeUnusable(f"there are no credentials in {home.root} yet; `modelyard up` makes them at its first start")
    return {
        "consoleUrl": f"{settings.https_url}/",
        "apiUrl": settings.http_url,
        "httpsUrl": settings.https_url,
        "appKey": known["app_key"],
        "accessToken": known["access_token"],
        "secretKey": known["secret_key"],
        "region": settings.region,
        "tenantId": known["tenant_id"],
        "apiUserId": known["api_user_id"],
        "objectStoreUrl": f"{settings.http_url}/v1/AUTH_{known['tenant_id']}",
        "objectStoreUser": known["store_user"],
        "objectStorePassword": known["store_password"],
        # Your own certificate is trusted by whatever trusts its issuer; there is nothing to add then.
        "caFile": str(home.certificates / "ca.crt") if settings.gateway.certificate is None else None,
        "adminUser": ADMIN,
        "adminPassword": known["admin_password"],
        "caBundle": str(home.certificates / "public/bundle.pem") if settings.gateway.certificate is None else None,
    }
