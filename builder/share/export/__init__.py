"""A profile's lock in the formats of other tools: pip's requirements, PEP 751, CycloneDX.

`requirements`, `pylock` and `sbom` are pure writers; `urls` and `licences` find facts that the lock does not have.
"""

from builder.share.export.export import FORMATS, Exported, export, save

__all__ = ["FORMATS", "Exported", "export", "save"]
