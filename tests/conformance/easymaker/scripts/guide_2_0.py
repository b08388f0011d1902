"""The guide's flow as a user of release 2.0.1 wrote it."""

import os
import pathlib
import time

import easymaker
from surroundings import finish, given, refusal_of, say

easymaker.init(appkey=os.environ["EM_APPKEY"], region=os.environ["EM_REGION"], secret_key=os.environ["EM_SECRET_KEY"])

account = {"easymaker_region": "kr1", "username": given.user, "password": given.password}
easymaker.upload(f"{given.store}/source", given.source, **account)
easymaker.upload(f"{given.store}/data", given.data, **account)
easymaker.download(f"{given.store}/source", given.download, **account)

experiment = easymaker.Experiment().create(experiment_name=given.name, description="of 2.0")
training = easymaker.Training().run(
    experiment_id=experiment.experiment_id,
    training_name=given.name,
    image_name=given.image,
    instance_name=given.flavor,
    source_dir_uri=f"{given.store}/source",
    entry_point="train.py",
    hyperparameter_list=[{"parameterName": "factor", "parameterValue": "2"}],
    dataset_list=[{"datasetName": "train", "dataUri": f"{given.store}/data"}],
    model_upload_uri=f"{given.store}/model",
    timeout_hours=1,
    tag_list=[{"tagKey": "made", "tagValue": "by hand"}],
    use_log=True,
)
model = easymaker.Model().create(model_name=given.name, training_id=training.training_id)
from_path = easymaker.Model().create_by_model_upload_uri(
    model_name=f"{given.name}-path", model_type_code=easymaker.TENSORFLOW, model_upload_uri=f"{given.store}/model"
)
endpoint = easymaker.Endpoint().create(
    endpoint_name=given.name,
    endpoint_model_resource_list=[{"modelId": model.model_id, "resourceOptionDetail": {"cpu": "1", "memory": "1Gi"}}],
    instance_name=given.flavor,
)
stage = easymaker.EndpointStage().create(
    stage_name="second",
    endpoint_id=endpoint.endpoint_id,
    instance_name=given.flavor,
    endpoint_model_resource_list=[{"modelId": model.model_id}],
)
say(
    default=endpoint.predict(model.model_id, json=given.question),
    second=stage.predict(model.model_id, json=given.question),
    v2=endpoint.predict(model.model_id, json=given.v2_question),
    stage_names=sorted(each.apigw_stage_name for each in endpoint.get_stage_list()),
    type_codes=[model.model_type_code, from_path.model_type_code],
)

logger = easymaker.logger(logncrash_appkey="some-log-and-crash-key")
logger.send(f"from {given.name}", log_level="INFO")

sender = easymaker.easymaker_config.api_sender
say(
    empty=[sender.get_hyperparameter_tuning_list(), sender.get_algorithm_list()],
    absent=refusal_of(
        easymaker.Pipeline().upload,
        pipeline_name="p",
        pipeline_spec_manifest_path=given.pipeline,
        description=None,
        tag_list=None,
    ),
    in_use=refusal_of(sender.delete_model_by_id, model.model_id),
    names=sorted(each["name"] for each in sender.get_training_list()),
)

endpoint_id = endpoint.endpoint_id
ids = (experiment.experiment_id, training.training_id, model.model_id, from_path.model_id)
stage.delete()
endpoint.delete()
while endpoint_id in [each["endpointId"] for each in sender.get_endpoint_list()]:
    time.sleep(0.5)
from_path.delete()
model.delete()
training.delete()
experiment.delete()
listed = (*sender.get_training_list(), *sender.get_model_list(), *sender.get_experiment_list())
say(
    downloaded=sorted(each.name for each in pathlib.Path(given.download).iterdir()),
    left_ids=[each["id"] for each in listed if each["id"] in ids],
)
finish()
