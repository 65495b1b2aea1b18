"""Build an environment a second time, beside the store: to put it in the place of a damaged one, or to compare."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from builder.build.script import Script, build_script
from builder.files import make_folder
from builder.store.layout import Store
from builder.store.scratch import scratch

if TYPE_CHECKING:
    from builder.report import Reporter


@contextmanager
def built_beside(store_name: str, script: Script, report: Reporter, *, share_bytecode: bool) -> Iterator[Path]:
    """Build what `script` builds in a store of its own, on the same disk; it is gone after the `with`.

    Gives the folder of the environment. With `share_bytecode` it links what is compiled already. Raises BuildError.
    """
    key, _, name = store_name.partition("-")
    store = Store.here()
    with scratch(store.environments, f".stage-{key}-") as side:
        if share_bytecode:
            make_folder(store.bytecode)
            (side / "bytecode").symlink_to(store.bytecode)
        build_script(name, script, report, home=side)
        yield side / "store" / store_name
