"""Looking into artifacts without trusting them.

Nothing here imports a framework, unpickles, or runs anything of a model's. Formats are read by small readers of their outer structure, over
files that answer ranges, with limits on bytes, fields and time: the question is what an artifact is and what it takes, not what it does.
"""
