"""A small `conda` for notebooks: environments below `custom-conda-envs`, from conda channels where one is reachable, else by uv.

It has the commands that the guide and users' habits need; `conda --help` lists them. It
runs in the image's environment, which nothing of the user's can break.
"""
