"""The only caller of uv: it resolves for any target, and installs for one.

uv is Drydock's resolver and installer; it comes as a dependency, so its version is known. Whoever only starts it, as a
build does, waits for no library that reads what it says.
"""

from builder.uv.audit import audit
from builder.uv.build import build_wheel, create_venv, install
from builder.uv.command import default_index, environment, executable, find_links, forget, hint, index_url, version
from builder.uv.pythons import fetch_python, finds_python, known_pythons, python_url
from builder.uv.questions import (
    answers,
    is_out_of_reach,
    parse_default_index,
    question_of_default_index,
    question_of_index,
    questions,
    reason,
)
from builder.uv.resolution import (
    Candidate,
    Pin,
    Said,
    Universe,
    candidates,
    candidates_beside,
    newer,
    resolve,
    why_unusable,
)

__all__ = [
    "Candidate",
    "Pin",
    "Said",
    "Universe",
    "answers",
    "audit",
    "build_wheel",
    "candidates",
    "candidates_beside",
    "create_venv",
    "default_index",
    "environment",
    "executable",
    "fetch_python",
    "find_links",
    "finds_python",
    "forget",
    "hint",
    "index_url",
    "install",
    "is_out_of_reach",
    "known_pythons",
    "newer",
    "parse_default_index",
    "python_url",
    "question_of_default_index",
    "question_of_index",
    "questions",
    "reason",
    "resolve",
    "version",
    "why_unusable",
]
