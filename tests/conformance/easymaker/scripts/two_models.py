"""Two models on one stage, of which one is taken off while the other answers."""

import os
import time

import easymaker
from surroundings import finish, given, refusal_of, say

easymaker.init(appkey=os.environ["EM_APPKEY"], region="kr1", access_token=os.environ["EM_ACCESS_TOKEN"])
easymaker.upload(f"{given.store}/two", given.data, username=given.user, password=given.password)
models = [
    easymaker.Model().create(
        model_name=f"two-{name}",
        model_format_code=easymaker.ModelFormatCode.TENSORFLOW,
        model_upload_uri=f"{given.store}/two",
    )
    for name in ("a", "b")
]
endpoint = easymaker.Endpoint().create(
    endpoint_name="two",
    endpoint_model_resource_list=[easymaker.EndpointModelResource(model_id=model.model_id) for model in models],
    instance_type_name=given.flavor,
)
say(before=[endpoint.predict(model.model_id, json=given.question) for model in models])
stage_id = endpoint.default_stage.endpoint_stage_id
[first, second] = easymaker.EndpointModel.get_list(endpoint_stage_id=stage_id)
going, staying = (first, second) if first.model_id == models[0].model_id else (second, first)
easymaker.EndpointModel.delete_by_id(going.endpoint_model_id)
easymaker.EndpointModel.delete_by_id(going.endpoint_model_id)
answers = []
while len(easymaker.EndpointModel.get_list(endpoint_stage_id=stage_id)) > 1:
    answers.append(endpoint.predict(models[1].model_id, json=given.question))
    time.sleep(0.2)
say(
    during=answers,
    after=endpoint.predict(models[1].model_id, json=given.question),
    gone=endpoint.predict(models[0].model_id, json=given.question),
    last=refusal_of(easymaker.EndpointModel.delete_by_id, staying.endpoint_model_id),
    unknown=refusal_of(easymaker.EndpointModel.delete_by_id, "no-such-model"),
    state=easymaker.Endpoint.get_by_id(endpoint.endpoint_id).status,
)
models[0].delete()
endpoint_id = endpoint.endpoint_id
endpoint.delete()
while endpoint_id in [each["endpointId"] for each in easymaker.easymaker_config.api_sender.get_endpoint_list()]:
    time.sleep(0.5)
models[1].delete()
finish()
