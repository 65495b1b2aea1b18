"""Hashes as plans, RECORD files and manifests write them."""

from __future__ import annotations

import base64
import hashlib


def sha256(content: bytes) -> str:
    """The sha256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def record_hash(content: bytes) -> str:
    """A hash as RECORD writes it (PEP 376, PEP 427): urlsafe base64 without padding."""
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
