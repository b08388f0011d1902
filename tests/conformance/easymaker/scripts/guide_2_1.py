"""The guide's flow as a user of releases 2.1 wrote it. Their response models check every answer's types and codes."""

import os
import pathlib
import time

import easymaker
from surroundings import finish, given, refusal_of, say

is_newest = easymaker.__version__ == "2.1.5"
easymaker.init(
    appkey=os.environ["EM_APPKEY"], region=os.environ["EM_REGION"], access_token=os.environ["EM_ACCESS_TOKEN"]
)

account = {"easymaker_region": "kr1", "username": given.user, "password": given.password}
store = easymaker.ObjectStorage(**account)
easymaker.ObjectStorage.MULTIPART_UPLOAD_FILE_SIZE_THRESHOLD = 1_000_000
easymaker.ObjectStorage.MULTIPART_UPLOAD_CHUNK_SIZE = 400_000
easymaker.ObjectStorage.MAX_OBJECT_LIST_COUNT = 2
store.upload(f"{given.store}/source", given.source)
store.upload(f"{given.store}/data", given.data)
store.upload(f"{given.store}/large", given.large)
store.download(f"{given.store}/large/{pathlib.Path(given.large).name}", given.download)
store.download(f"{given.store}/data", given.download, file_extensions=[".txt"])
say(found=store.find_object_list(f"{given.store}/source"), size=store.get_object_size(f"{given.store}/source"))

experiment = easymaker.Experiment().create(experiment_name=given.name, description="of 2.1")
again = easymaker.Experiment().create(experiment_name=given.name)
training = easymaker.Training().run(
    experiment_id=experiment.experiment_id,
    training_name=given.name,
    image_name=given.image,
    instance_type_name=given.flavor,
    source_dir_uri=f"{given.store}/source",
    entry_point="train.py",
    hyperparameter_list=[easymaker.Parameter(parameter_name="factor", parameter_value="2")]
    if hasattr(easymaker, "Parameter")
    else [{"parameterName": "factor", "parameterValue": "2"}],
    dataset_list=[easymaker.Dataset(dataset_name="train", data_uri=f"{given.store}/data")],
    model_upload_uri=f"{given.store}/model",
    timeout_hours=1,
    use_log=True,
)
model = easymaker.Model().create(model_name=given.name, training_id=training.training_id)
if is_newest:
    codes = easymaker.ModelFormatCode
    from_path = easymaker.Model().create(
        model_name=f"{given.name}-path", model_format_code=codes.TENSORFLOW, model_upload_uri=f"{given.store}/model"
    )
    hugging_face = refusal_of(easymaker.Model().create_hugging_face_model, model_name="hf")
    say(formats=[model.model_format_code.value, from_path.model_format_code.value], hugging_face=hugging_face)
else:
    from_path = easymaker.Model().create_by_model_upload_uri(
        model_name=f"{given.name}-path", model_type_code="TENSORFLOW", model_upload_uri=f"{given.store}/model"
    )
    say(formats=[model.model_type_code, from_path.model_type_code])

resource = easymaker.EndpointModelResource(
    model_id=model.model_id,
    resource_option_detail=easymaker.ResourceOptionDetail(cpu="1", memory="1Gi"),
    pod_auto_scale_enable=False,
    scale_metric_code="CPU_UTILIZATION",
    scale_metric_target=50,
    description="the model",
)
endpoint = easymaker.Endpoint().create(
    endpoint_name=given.name, endpoint_model_resource_list=[resource], instance_type_name=given.flavor
)
stage = easymaker.EndpointStage().create(
    stage_name="second",
    endpoint_id=endpoint.endpoint_id,
    instance_type_name=given.flavor,
    endpoint_model_resource_list=[easymaker.EndpointModelResource(model_id=model.model_id)],
    autoscaler_enable=True,
    autoscaler_max_node_count=3,
    autoscaler_scale_down_util_threshold=40,
)
scaler = easymaker.EndpointStage.get_by_id(stage.endpoint_stage_id).auto_scaler
say(
    scaler=[scaler.enable, scaler.min_node_count, scaler.max_node_count, scaler.scale_down_util_thresh_percentage],
    default=endpoint.predict(model.model_id, json=given.question),
    second=stage.predict(model.model_id, json=given.question),
    v2=endpoint.predict(model.model_id, json=given.v2_question),
    stage_names=sorted(each.apigw_stage_name for each in endpoint.get_stage_list()),
)

logger = easymaker.logger(logncrash_appkey="some-log-and-crash-key")
logger.send(f"from {given.name}", parameters={"step": "last"})

# Every list and every single one through the client's own models.
kinds = ("Experiment", "Training", "Model", "Endpoint", "EndpointModel", "HyperparameterTuning", "BatchInference")
kinds += ("Pipeline", "PipelineRun", "PipelineRecurringRun", "ModelEvaluation", "FineTuning", "ModelPreset")
lengths = {}
for kind in kinds:
    group = getattr(easymaker, kind, None)
    if group is None:
        continue
    arguments = {"endpoint_stage_id": stage.endpoint_stage_id} if kind == "EndpointModel" else {}
    listed = group.get_list(**arguments)
    lengths[kind] = len(listed)
    for each in listed[:3]:
        if kind != "EndpointModel":
            assert group.get_by_id(each.id).status == each.status, each
say(
    lengths=lengths,
    flavors=[each.name for each in easymaker.Training.get_instance_type_list()],
    images=[each.name for each in easymaker.Training.get_image_list()],
    algorithms=easymaker.Training.get_algorithm_list(),
    experiment_of_training=easymaker.Training.get_by_id(training.training_id).experiment.experiment_name,
    unknown=refusal_of(easymaker.Training.get_by_id, "no-such-training"),
    in_use=refusal_of(easymaker.Model.delete_by_id, model.model_id),
    absent=refusal_of(
        easymaker.Pipeline().upload, pipeline_name="p", pipeline_spec_manifest_path=given.pipeline, wait=False
    ),
    wrong=refusal_of(
        easymaker.Training().run,
        training_name="x" * 51,
        image_name=given.image,
        instance_type_name=given.flavor,
        source_dir_uri="obs://elsewhere.example.com/v1/AUTH_x/c/p",
        entry_point="train.py",
        model_upload_uri=f"{given.store}/model",
    ),
)

endpoint_id = endpoint.endpoint_id
ids = (experiment.experiment_id, training.training_id, model.model_id, from_path.model_id)
stage.delete()
endpoint.delete()
sender = easymaker.easymaker_config.api_sender
while endpoint_id in [each["endpointId"] for each in sender.get_endpoint_list()]:
    time.sleep(0.5)
from_path.delete()
model.delete()
training.delete()
experiment.delete()
store.delete(f"{given.store}/source")
listed = (*sender.get_training_list(), *sender.get_model_list(), *sender.get_experiment_list())
say(
    again=again.experiment_id == ids[0],
    downloaded=sorted(each.name for each in pathlib.Path(given.download).iterdir()),
    left=store.find_object_list(f"{given.store}/source"),
    left_ids=[each["id"] for each in listed if each["id"] in ids],
)
finish()
