"""The guide's flow as a user of release 1.0 wrote it."""

import os
import pathlib

import easymaker
from surroundings import finish, given, say

easymaker.init(appkey=os.environ["EM_APPKEY"], region=os.environ["EM_REGION"], secret_key=os.environ["EM_SECRET_KEY"])

account = {"easymaker_region": "kr1", "username": given.user, "password": given.password}
easymaker.upload(f"{given.store}/source", given.source, **account)
easymaker.upload(f"{given.store}/data", given.data, **account)
easymaker.download(f"{given.store}/source", given.download, **account)

experiment_id = easymaker.Experiment().create(experiment_name=given.name, experiment_description="of 1.0", wait=True)
training_id = easymaker.Training().run(
    experiment_id=experiment_id,
    training_name=given.name,
    training_description="of 1.0",
    train_image_name=given.image,
    train_instance_name=given.flavor,
    train_instance_count=1,
    source_dir_uri=f"{given.store}/source",
    entry_point="train.py",
    hyperparameter_list=[{"hyperparameterKey": "factor", "hyperparameterValue": "2"}],
    dataset_list=[{"datasetName": "train", "dataUri": f"{given.store}/data"}],
    check_point_upload_uri=f"{given.store}/checkpoints",
    model_upload_uri=f"{given.store}/model",
    timeout_hours=1,
    tag_list=[{"tagKey": "made", "tagValue": "by hand"}],
    use_log=True,
    wait=True,
)
model_id = easymaker.Model().create(
    model_name=given.name, training_id=training_id, tag_list=[{"tagKey": "made", "tagValue": "by hand"}]
)
other_model_id = easymaker.Model().create_by_model_uri(
    model_name=f"{given.name}-from-path", framework_code=easymaker.TENSORFLOW, model_uri=f"{given.store}/model"
)

endpoint = easymaker.Endpoint()
endpoint_id = endpoint.create(
    model_id=model_id,
    endpoint_name=given.name,
    endpoint_description="of 1.0",
    endpoint_instance_name=given.flavor,
    apigw_resource_uri="/inference",
    endpoint_instance_count=1,
    use_log=False,
    wait=True,
)
say(default=endpoint.predict(json=given.question))

stage_id = endpoint.create_stage(
    model_id=model_id, stage_name="second", endpoint_instance_name=given.flavor, endpoint_instance_count=1, wait=True
)
stages = endpoint.get_endpoint_stage_info_list()
second = next(each for each in stages if each["endpoint_stage_id"] == stage_id)
say(second=endpoint.predict(endpoint_stage_info=second, json=given.question))
models = endpoint.get_endpoint_model_list()["endpointModelList"]
say(
    stage_names=sorted(each["stage_name"] for each in stages),
    model_ids=sorted({each["modelId"] for each in models}),
    wanted_model_id=model_id,
)

logger = easymaker.logger(logncrash_appkey=os.environ["EM_APPKEY"])
logger.send(f"from {given.name}", log_level="ERROR", parameters={"step": "last"})

say(
    ids=[experiment_id, training_id, model_id, other_model_id, endpoint_id, stage_id],
    downloaded=sorted(each.name for each in pathlib.Path(given.download).iterdir()),
)
finish()
