"""Mirrors: the locked files of profiles as a static package index that pip, uv and Drydock's own scripts read.

    DEST/files/<sha256[:2]>/<sha256>/NAME       the files, and beside each wheel its metadata (PEP 658)
    DEST/simple/index.html, index.json          the index (PEP 503, PEP 691)
    DEST/simple/<project>/index.html, index.json
    DEST/SHA256SUMS                             all files, as `sha256sum -c` reads it; written last

All of the index follows from which files are there, so that whoever writes last, writes the whole.
"""

from builder.share.mirror.transfer import Pushed, pull, push

__all__ = ["Pushed", "pull", "push"]
