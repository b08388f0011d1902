"""The credentials of a home, as `modelyard credentials` shows them. They are made at the first start (`first_project.py`)."""

from __future__ import annotations

from typing import Any

from modelyard.server.home import Home, HomeUnusable, unseal
from modelyard.server.settings import Settings

SEALED = "credentials"
"""The name that they are sealed under."""
ADMIN = "admin"


def show_credentials(home: Home, settings: Settings) -> dict[str, Any]:
    """What a user needs to connect. Raises `HomeUnusable` before the first start."""
    known = unseal(home, SEALED)
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
