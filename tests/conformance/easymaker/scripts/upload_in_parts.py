"""A file that the client thinks too large for one request, beside a small one."""

import easymaker
from surroundings import finish, given

easymaker.ObjectStorage.MULTIPART_UPLOAD_FILE_SIZE_THRESHOLD = 1_000_000
easymaker.ObjectStorage.MULTIPART_UPLOAD_CHUNK_SIZE = 400_000
store = easymaker.ObjectStorage(easymaker_region="kr1", username=given.user, password=given.password)
store.upload(f"{given.store}/parts", given.large)
finish()
