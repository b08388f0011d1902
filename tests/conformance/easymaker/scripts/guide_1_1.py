"""The guide's flow as a user of release 1.1.6 wrote it."""

import os
import pathlib
import time

import easymaker
from surroundings import finish, given, refusal_of, say

easymaker.init(appkey=os.environ["EM_APPKEY"], region=os.environ["EM_REGION"], secret_key=os.environ["EM_SECRET_KEY"])

store = easymaker.ObjectStorage(easymaker_region="kr1", username=given.user, password=given.password)
easymaker.ObjectStorage.MULTIPART_UPLOAD_FILE_SIZE_THRESHOLD = 1_000_000
easymaker.ObjectStorage.MULTIPART_UPLOAD_CHUNK_SIZE = 400_000
store.upload(f"{given.store}/source", given.source)
store.upload(f"{given.store}/data", given.data)
store.upload(f"{given.store}/large", given.large)
store.download(f"{given.store}/large/{pathlib.Path(given.large).name}", given.download)
store.download(f"{given.store}/source", given.download)

experiment_id = easymaker.Experiment().create(experiment_name=given.name, experiment_description="of 1.1")
again_id = easymaker.Experiment().create(experiment_name=given.name)

trainings = easymaker.Training()
training_id = trainings.run(
    experiment_id=experiment_id,
    training_name=given.name,
    train_image_name=given.image,
    train_instance_name=given.flavor,
    distributed_node_count=1,
    source_dir_uri=f"{given.store}/source",
    entry_point="train.py",
    hyperparameter_list=[{"hyperparameterKey": "factor", "hyperparameterValue": "2"}],
    dataset_list=[{"datasetName": "train", "dataUri": f"{given.store}/data"}],
    model_upload_uri=f"{given.store}/model",
    timeout_hours=1,
    use_log=True,
)
models = easymaker.Model()
model_id = models.create(model_name=given.name, training_id=training_id)

endpoints = easymaker.Endpoint()
resources = [{"modelId": model_id, "apigwResourceUri": "/inference", "podCount": 1, "description": "the model"}]
endpoint_id = endpoints.create(
    endpoint_name=given.name, endpoint_instance_name=given.flavor, endpoint_model_resource_list=resources
)
default = endpoints.get_default_endpoint_stage()
say(default=endpoints.predict(endpoint_stage_info=default, model_id=model_id, json=given.question))
stage_id = endpoints.create_stage(
    stage_name="second", endpoint_instance_name=given.flavor, endpoint_model_resource_list=resources
)
second = endpoints.get_endpoint_stage_by_id(stage_id)
say(second=endpoints.predict(endpoint_stage_info=second, model_id=model_id, json=given.question))
deployed = endpoints.get_endpoint_model_list(stage_id)["endpointModelList"]
say(
    stage_names=sorted(each["apigwStageName"] for each in endpoints.get_endpoint_stage_list()),
    endpoint_model=endpoints.get_endpoint_model_by_id(deployed[0]["endpointModelId"])["modelId"],
)

logger = easymaker.logger(logncrash_appkey="some-log-and-crash-key")
logger.send(f"from {given.name}", log_level="WARN")

sender = easymaker.easymaker_config.api_sender
say(
    empty=[sender.get_hyperparameter_tuning_list(), sender.get_algorithm_list(), sender.get_batch_inference_list()],
    absent=refusal_of(
        easymaker.BatchInference().run,
        batch_inference_name="b",
        instance_count=1,
        instance_name=given.flavor,
        model_name=given.name,
        input_data_uri=f"{given.store}/data",
        input_data_type="JSON",
        output_upload_uri=f"{given.store}/out",
        data_storage_size=300,
    ),
    in_use=refusal_of(models.delete, model_id),
)

endpoints.delete_endpoint_stage(stage_id)
endpoints.delete_endpoint(endpoint_id)
names = sorted(each["name"] for each in sender.get_training_list())
while endpoint_id in [each["id"] for each in sender.get_endpoint_list()]:
    time.sleep(0.5)
models.delete(model_id)
trainings.delete(training_id)
easymaker.Experiment().delete(experiment_id)
store.delete(f"{given.store}/source")
say(
    again=again_id == experiment_id,
    downloaded=sorted(each.name for each in pathlib.Path(given.download).iterdir()),
    names=names,
    left=store.find_object_list(f"{given.store}/source"),
    left_ids=[
        each["id"]
        for each in (*sender.get_training_list(), *sender.get_model_list(), *sender.get_experiment_list())
        if each["id"] in (experiment_id, training_id, model_id)
    ],
)
finish()
