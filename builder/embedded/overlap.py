"""Files that more than one package brings, with different content: whose is there is said by the profile.

An installer takes whichever it writes last. Here the plan has an order, or there is no environment.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Collection, Mapping, Optional

_CACHED = re.compile(r"(?:__pycache__/)([^/]+)\.[^./]+\.pyc$")


def plain(path: str) -> str:
    """A path of an environment as a profile names it: in site-packages relative to that; of bytecode, its module.

    >>> plain("lib/python3.11/site-packages/cv2/__pycache__/typing.cpython-311.pyc"), plain("bin/tool")
    ('cv2/typing.py', 'bin/tool')
    """
    return _CACHED.sub(r"\1.py", re.sub(r"^lib/python3\.\d+/site-packages/", "", path))


def winner(path: str, packages: Collection[str], overlap: Mapping[str, str]) -> Optional[str]:
    """Which of some packages that bring a path has it, by the order of a plan; None where that does not say.

    `*` stands for anything, `/` too. Of several patterns that fit, the longest counts.

    >>> order = {"cv2/*": "opencv-python-headless", "cv2/data/*": "opencv-python"}
    >>> winner("cv2/data/face.xml", ["opencv-python", "opencv-python-headless"], order)
    'opencv-python'
    """
    name = plain(path)
    fitting = sorted(pattern for pattern in overlap if fnmatchcase(name, pattern) and overlap[pattern] in packages)
    return overlap[max(fitting, key=len)] if fitting else None
