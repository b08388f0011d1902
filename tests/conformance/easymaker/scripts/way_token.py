"""No `init`: the variables make the client at import, and a token of the platform opens its object store, too."""

import pathlib

import easymaker
from surroundings import finish, given, say

easymaker.upload(f"{given.store}/source", given.source)
easymaker.download(f"{given.store}/source", given.download)
store = easymaker.ObjectStorage()
say(
    found=[name.removeprefix(f"{given.name}/") for name in store.find_object_list(f"{given.store}/source")],
    downloaded=sorted(each.name for each in pathlib.Path(given.download).iterdir()),
    experiments=len(easymaker.Experiment.get_list()),
)
store.delete(f"{given.store}/source")
say(left=store.find_object_list(f"{given.store}/source"))
finish()
