"""Where things lie in storage: from what users write (`obs://…`, `nas://…`, `container/path`) to URLs of the object store."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from modelyard.objectstore.paths import BadStoragePath, ObsPath, parse_obs_path, parse_storage_path
from modelyard.resources.storages.schemas import StorageAccountOne, StorageAccountOut
from modelyard.sdk.api import Api
from modelyard.sdk.errors import BadRequest

_BAD_PATH = 400001


class Places:
    """Resolves paths for one project. The account is asked for once."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._account: StorageAccountOut | None = None

    async def account(self) -> StorageAccountOut:
        """The project's account in the object store."""
        if self._account is None:
            answer = await self._api.ask(StorageAccountOne, "GET", "/storage-account")
            self._account = answer.storage_account
        return self._account

    async def uri(self, text: str) -> str:
        """The storage path that the API takes. `container/path` means the platform's own store. Raises `BadRequest`."""
        if "://" not in text:
            return str(await self.locate(text))
        try:
            return str(parse_storage_path(text))
        except BadStoragePath as error:
            raise BadRequest(400, _BAD_PATH, str(error)) from None

    async def locate(self, text: str) -> ObsPath:
        """A place in an object store from `obs://…` or `container/path`. Raises `BadRequest`."""
        try:
            if "://" in text:
                return parse_obs_path(text)
            account = await self.account()
            own = urlsplit(self._api.connection.https_url or account.object_store_url).netloc
            return parse_obs_path(f"obs://{own}/v1/AUTH_{account.tenant_id}/{quote(text.strip('/'))}")
        except BadStoragePath as error:
            raise BadRequest(400, _BAD_PATH, str(error)) from None

    async def url(self, path: ObsPath) -> str:
        """The URL of a container or an object, on the platform's front door; it carries calls on to stores elsewhere."""
        account = await self.account()
        front = urlsplit(account.object_store_url)
        door = f"{front.scheme}://{front.netloc}"
        if path.tenant == account.tenant_id or path.host in self._own_hosts(front.netloc):
            return door + path.url_path
        return f"{door}/v1/remote/{path.host}{path.url_path}"

    def _own_hosts(self, store_host: str) -> set[str]:
        connection = self._api.connection
        addresses = [connection.api_url, connection.https_url or ""]
        return {urlsplit(address).netloc.lower() for address in addresses} | {store_host.lower()}
