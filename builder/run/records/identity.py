"""What runs are called: 20261126-131528-3f2a9c1e, in UTC. Services of a fleet name theirs so too, on their hosts."""

from __future__ import annotations

import os
import re
import time

FORM = r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}"


def new_id(now: float) -> str:
    """The id of a run that begins now: sorted by time, and one that no other has."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{os.urandom(4).hex()}"


def is_id(word: str) -> bool:
    """Whether a word has the form of the id of a run."""
    return re.fullmatch(FORM, word) is not None
