"""The plain groups of `Client`: each method is its coroutine's, run to its end.

There is no logic here. A test compares the two sides, so that no method can be missing.
"""

from __future__ import annotations

from modelyard.sdk.blocking import Blocking, blocking, blocking_each
from modelyard.sdk.groups.catalogue import AsyncFlavors, AsyncImages
from modelyard.sdk.groups.endpoints import AsyncEndpoints, AsyncStages
from modelyard.sdk.groups.experiments import AsyncExperiments
from modelyard.sdk.groups.logs import AsyncLogs
from modelyard.sdk.groups.models import AsyncModels
from modelyard.sdk.groups.nas_volumes import AsyncNasVolumes
from modelyard.sdk.groups.notebooks import AsyncNotebooks
from modelyard.sdk.groups.people import AsyncMembers, AsyncSessions
from modelyard.sdk.groups.storage import AsyncStorage
from modelyard.sdk.groups.tensorboards import AsyncTensorBoards
from modelyard.sdk.groups.trainings import AsyncTrainings


class Flavors(Blocking[AsyncFlavors]):
    """`client.flavors`."""

    list = blocking(AsyncFlavors.list)
    get = blocking(AsyncFlavors.get)
    id_of = blocking(AsyncFlavors.id_of)


class Images(Blocking[AsyncImages]):
    """`client.images`."""

    list = blocking(AsyncImages.list)
    get = blocking(AsyncImages.get)
    id_of = blocking(AsyncImages.id_of)
    build = blocking(AsyncImages.build)
    wait = blocking(AsyncImages.wait)


class Experiments(Blocking[AsyncExperiments]):
    """`client.experiments`."""

    create = blocking(AsyncExperiments.create)
    get = blocking(AsyncExperiments.get)
    find = blocking(AsyncExperiments.find)
    id_of = blocking(AsyncExperiments.id_of)
    list = blocking(AsyncExperiments.list)
    compare = blocking(AsyncExperiments.compare)
    update = blocking(AsyncExperiments.update)
    retry = blocking(AsyncExperiments.retry)
    delete = blocking(AsyncExperiments.delete)
    delete_many = blocking(AsyncExperiments.delete_many)
    wait = blocking(AsyncExperiments.wait)
    iterate = blocking_each(AsyncExperiments.iterate)


class Trainings(Blocking[AsyncTrainings]):
    """`client.trainings`."""

    create = blocking(AsyncTrainings.create)
    get = blocking(AsyncTrainings.get)
    find = blocking(AsyncTrainings.find)
    id_of = blocking(AsyncTrainings.id_of)
    list = blocking(AsyncTrainings.list)
    update = blocking(AsyncTrainings.update)
    stop = blocking(AsyncTrainings.stop)
    request_of = blocking(AsyncTrainings.request_of)
    copy = blocking(AsyncTrainings.copy)
    submit = blocking(AsyncTrainings.submit)
    metrics = blocking(AsyncTrainings.metrics)
    log_metrics = blocking(AsyncTrainings.log_metrics)
    usage = blocking(AsyncTrainings.usage)
    delete = blocking(AsyncTrainings.delete)
    delete_many = blocking(AsyncTrainings.delete_many)
    wait = blocking(AsyncTrainings.wait)
    events = blocking(AsyncTrainings.events)
    iterate = blocking_each(AsyncTrainings.iterate)
    logs = blocking_each(AsyncTrainings.logs)


class Notebooks(Blocking[AsyncNotebooks]):
    """`client.notebooks`."""

    create = blocking(AsyncNotebooks.create)
    get = blocking(AsyncNotebooks.get)
    find = blocking(AsyncNotebooks.find)
    id_of = blocking(AsyncNotebooks.id_of)
    list = blocking(AsyncNotebooks.list)
    update = blocking(AsyncNotebooks.update)
    stop = blocking(AsyncNotebooks.stop)
    start = blocking(AsyncNotebooks.start)
    resize = blocking(AsyncNotebooks.resize)
    usage = blocking(AsyncNotebooks.usage)
    open = blocking(AsyncNotebooks.open)
    delete = blocking(AsyncNotebooks.delete)
    wait = blocking(AsyncNotebooks.wait)
    events = blocking(AsyncNotebooks.events)
    iterate = blocking_each(AsyncNotebooks.iterate)
    logs = blocking_each(AsyncNotebooks.logs)


class TensorBoards(Blocking[AsyncTensorBoards]):
    """`client.tensorboards`."""

    start = blocking(AsyncTensorBoards.start)
    get = blocking(AsyncTensorBoards.get)
    stop = blocking(AsyncTensorBoards.stop)
    open = blocking(AsyncTensorBoards.open)


class Models(Blocking[AsyncModels]):
    """`client.models`."""

    create = blocking(AsyncModels.create)
    get = blocking(AsyncModels.get)
    find = blocking(AsyncModels.find)
    id_of = blocking(AsyncModels.id_of)
    list = blocking(AsyncModels.list)
    update = blocking(AsyncModels.update)
    set_alias = blocking(AsyncModels.set_alias)
    drop_alias = blocking(AsyncModels.drop_alias)
    delete = blocking(AsyncModels.delete)
    wait = blocking(AsyncModels.wait)
    events = blocking(AsyncModels.events)
    iterate = blocking_each(AsyncModels.iterate)


class Endpoints(Blocking[AsyncEndpoints]):
    """`client.endpoints`."""

    create = blocking(AsyncEndpoints.create)
    get = blocking(AsyncEndpoints.get)
    find = blocking(AsyncEndpoints.find)
    id_of = blocking(AsyncEndpoints.id_of)
    list = blocking(AsyncEndpoints.list)
    update = blocking(AsyncEndpoints.update)
    delete = blocking(AsyncEndpoints.delete)
    wait = blocking(AsyncEndpoints.wait)
    events = blocking(AsyncEndpoints.events)
    change_default_stage = blocking(AsyncEndpoints.change_default_stage)
    revert_default_stage = blocking(AsyncEndpoints.revert_default_stage)
    split_traffic = blocking(AsyncEndpoints.split_traffic)
    traffic = blocking(AsyncEndpoints.traffic)
    statistics = blocking(AsyncEndpoints.statistics)
    api_keys = blocking(AsyncEndpoints.api_keys)
    create_api_key = blocking(AsyncEndpoints.create_api_key)
    revoke_api_key = blocking(AsyncEndpoints.revoke_api_key)
    predict = blocking(AsyncEndpoints.predict)
    call = blocking(AsyncEndpoints.call)
    iterate = blocking_each(AsyncEndpoints.iterate)


class Stages(Blocking[AsyncStages]):
    """`client.stages`."""

    create = blocking(AsyncStages.create)
    get = blocking(AsyncStages.get)
    find = blocking(AsyncStages.find)
    id_of = blocking(AsyncStages.id_of)
    list = blocking(AsyncStages.list)
    delete = blocking(AsyncStages.delete)
    wait = blocking(AsyncStages.wait)
    events = blocking(AsyncStages.events)
    models = blocking(AsyncStages.models)
    model = blocking(AsyncStages.model)
    deploy = blocking(AsyncStages.deploy)
    scale = blocking(AsyncStages.scale)
    gateway_settings = blocking(AsyncStages.gateway_settings)
    settings = blocking(AsyncStages.settings)
    change_settings = blocking(AsyncStages.change_settings)
    delete_model = blocking(AsyncStages.delete_model)
    logs = blocking_each(AsyncStages.logs)


class NasVolumes(Blocking[AsyncNasVolumes]):
    """`client.nas_volumes`."""

    create = blocking(AsyncNasVolumes.create)
    get = blocking(AsyncNasVolumes.get)
    find = blocking(AsyncNasVolumes.find)
    id_of = blocking(AsyncNasVolumes.id_of)
    list = blocking(AsyncNasVolumes.list)
    delete = blocking(AsyncNasVolumes.delete)
    wait = blocking(AsyncNasVolumes.wait)


class Members(Blocking[AsyncMembers]):
    """`client.members`."""

    list = blocking(AsyncMembers.list)
    add = blocking(AsyncMembers.add)
    remove = blocking(AsyncMembers.remove)


class Sessions(Blocking[AsyncSessions]):
    """`client.sessions`."""

    list = blocking(AsyncSessions.list)
    revoke = blocking(AsyncSessions.revoke)
    access_token = blocking(AsyncSessions.access_token)


class Storage(Blocking[AsyncStorage]):
    """`client.storage`."""

    account = blocking(AsyncStorage.account)
    uri = blocking(AsyncStorage.uri)
    containers = blocking(AsyncStorage.containers)
    create_container = blocking(AsyncStorage.create_container)
    grants = blocking(AsyncStorage.grants)
    grant = blocking(AsyncStorage.grant)
    list = blocking(AsyncStorage.list)
    upload = blocking(AsyncStorage.upload)
    download = blocking(AsyncStorage.download)
    read = blocking(AsyncStorage.read)
    delete = blocking(AsyncStorage.delete)
    iterate = blocking_each(AsyncStorage.iterate)


class Logs(Blocking[AsyncLogs]):
    """`client.logs`."""

    search = blocking(AsyncLogs.search)
    iterate = blocking_each(AsyncLogs.iterate)
