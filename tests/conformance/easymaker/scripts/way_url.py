"""The REST API over plain HTTP, as releases from 2.1.0 on reach it by EM_API_URL."""

import os

import easymaker
from surroundings import finish, given, refusal_of, say

easymaker.init(appkey=os.environ["EM_APPKEY"], region="kr1", access_token=os.environ["EM_ACCESS_TOKEN"])
experiment = easymaker.Experiment().create(experiment_name=given.name)
say(state=easymaker.Experiment.get_by_name(given.name).status, nobody=refusal_of(easymaker.Experiment.get_by_name, "x"))
experiment.delete()
easymaker.init(appkey=os.environ["EM_APPKEY"], region="kr1", access_token="wrong")
say(wrong=refusal_of(easymaker.Experiment.get_list))
finish()
