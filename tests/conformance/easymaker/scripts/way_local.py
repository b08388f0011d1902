"""The REST API for every release at the one address that all of them know: EM_PROFILE=local."""

import os

import easymaker
from surroundings import finish, say

credential = {"secret_key": os.environ["EM_SECRET_KEY"]}
if "access_token" in easymaker.init.__kwdefaults__:
    credential = {"access_token": os.environ["EM_ACCESS_TOKEN"]}
easymaker.init(appkey=os.environ["EM_APPKEY"], region=os.environ["EM_REGION"], **credential)
sender = easymaker.easymaker_config.api_sender
say(images=len(sender.get_image_list()), url=sender._easymakerApiUrl)
finish()
