"""Build an environment a second time, beside the store: to put it in the place of a damaged one, or to compare."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from builder.build.script import build_script
from builder.files import remove_tree
from builder.store.layout import home

if TYPE_CHECKING:
    from builder.report import Reporter


@contextmanager
def built_beside(store_name: str, script: Path, report: Reporter, *, share_bytecode: bool) -> Iterator[Path]:
    """Build what `script` builds in a store of its own, on the same disk; it is gone after the `with`.

    Gives the folder of the environment. With `share_bytecode` it links what is compiled already. Raises BuildError.
    """
    key, _, name = store_name.partition("-")
    # Named as a stage, so that a later build or collection removes what a killed one leaves.
    side = home() / "store" / f".stage-{key}-{os.uname().nodename}-{os.getpid()}"
    side.mkdir(parents=True)
    try:
        if share_bytecode:
            (home() / "bytecode").mkdir(exist_ok=True)
            (side / "bytecode").symlink_to(home() / "bytecode")
        build_script(name, script, report, home=side)
        yield side / "store" / store_name
    finally:
        remove_tree(side)
