"""What git and its hosts should know of the files of a project: added to its `.gitattributes`, once.

Pure: texts in, texts out. Locks and scripts are compared byte for byte, so that their lines end everywhere as they were
written; and a review need not open what is generated (gitattributes(5); `linguist-generated` is GitHub's).
"""

from __future__ import annotations

LINES = (
    "generated/** text eol=lf linguist-generated",
    "profiles/** text=auto eol=lf",
    "profiles/*.lock.toml text eol=lf linguist-generated",
)


def with_lines(text: str) -> str:
    """`text` with those of `LINES` at its end whose paths it does not mention yet; all else as it is.

    >>> print(with_lines("generated/** -text\\n"), end="")
    generated/** -text
    profiles/** text=auto eol=lf
    profiles/*.lock.toml text eol=lf linguist-generated
    """
    there = {line.split()[0] for line in text.splitlines() if line.strip()}
    missing = [line for line in LINES if line.split()[0] not in there]
    if not missing:
        return text
    return f"{text if not text or text.endswith(chr(10)) else text + chr(10)}" + "".join(f"{one}\n" for one in missing)
