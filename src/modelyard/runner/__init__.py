"""What runs inside a training instance or a model server's instance, before and around the user's own process.

It is standard library only and imports nothing else of the platform, because it starts in the image's environment, which holds the
user's framework and not the platform. Its syntax stays valid on Python 3.9, since images may be older than the platform.
"""
