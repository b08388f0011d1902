"""What all scripts of the suite share. It is read by interpreters that have one release of the official client and nothing of ours."""

import json
import os
import time
from types import SimpleNamespace

_sleep = time.sleep
time.sleep = lambda seconds: _sleep(min(seconds, 0.5))  # every release asks again after ten seconds

given = SimpleNamespace(**json.loads(os.environ["GIVEN"]))
_said = {}


def say(**values):
    """Tell the test something, as the last line of the output in the end."""
    _said.update(values)


def finish():
    """Say all of it."""
    print("RESULT " + json.dumps(_said, default=str))


def refusal_of(call, *arguments, **named):
    """The text of the error that a call ends with."""
    try:
        call(*arguments, **named)
    except Exception as error:
        return str(error)
    return None
