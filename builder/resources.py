"""What comes with Drydock: its version, the templates and the built-in profiles."""

from __future__ import annotations

from pathlib import Path

DISTRIBUTION = "drydock-env"
_PACKAGE = Path(__file__).resolve().parent


def shipped(folder: str) -> Path:
    """The folder `templates` or `profiles` that came with Drydock: inside the package of a wheel, beside it in a
    checkout.
    """
    inside = _PACKAGE / folder
    return inside if inside.is_dir() else _PACKAGE.parent / folder


def version() -> str:
    """Drydock's own version."""
    from importlib.metadata import version as of

    return of(DISTRIBUTION)
