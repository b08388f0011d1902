"""What runs inside a notebook: it makes the place ready, keeps the Jupyter server going, and tells the platform how it is.

Standard library only, but for the parts that Jupyter itself loads (`lab`, `extension`) and the small `conda`, because it starts in the
image's environment, which holds the user's framework and not the platform.
"""
