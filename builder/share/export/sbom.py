"""A software bill of materials: CycloneDX 1.6 in JSON (https://cyclonedx.org/docs/1.6/json/).

The same plan gives the same bytes. Written without cyclonedx-python-lib, which is seven packages more for one format of
one command (docs/decisions/0012); the tests check each bill against its schema.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from builder.lock.model import Artefact, LockedPatch
from builder.script.plan import Plan
from builder.share.export.licences import Licence


def sbom(plan: Plan, licences: Mapping[str, Licence], epoch: int | None = None) -> str:
    """The text of the bill: what is installed, with its patches, and what builds the source distributions.

    `licences` has what is known of them, by package name; `epoch` is the time that it states, in seconds since 1970.
    """
    locked = plan.lock
    built = {package.name for package in locked.packages}
    tools = [package for package in locked.build_requires if package.name not in built]
    bill: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, f'drydock:{plan.store_name}')}",
        "version": 1,
        "metadata": {
            **(
                {}
                if epoch is None
                else {"timestamp": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
            ),
            "tools": {"components": [{"type": "application", "name": "drydock", "version": version("drydock-env")}]},
            "component": _root(plan),
        },
        "components": [
            *(_component(plan, package, licences, "required") for package in locked.packages),
            *(_component(plan, package, licences, "excluded") for package in tools),
            *([_python(locked.python)] if locked.python else []),
        ],
        "dependencies": _dependencies(plan),
    }
    return json.dumps(bill, indent=1, ensure_ascii=False) + "\n"


def is_of(text: str, name: str) -> bool:
    """Whether `text` is a bill that Drydock made for the profile `name`."""
    try:
        about = json.loads(text)["metadata"]
        return bool(about["tools"]["components"][0]["name"] == "drydock" and about["component"]["name"] == name)
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


def purl(package: Artefact, index_url: Callable[[str], str]) -> str:
    """The package URL (https://github.com/package-url/purl-spec, type pypi) of one file; `index_url` is the profile's.

    >>> purl(Artefact(name="torch", version="2.13.0+cpu", file="torch-2.13.0+cpu.tar.gz", size=0, sha256="0" * 64), str)
    'pkg:pypi/torch@2.13.0%2Bcpu?file_name=torch-2.13.0%2Bcpu.tar.gz'
    """
    found = f"pkg:pypi/{package.name}@{quote(package.version, safe='')}?file_name={quote(package.file, safe='')}"
    return f"{found}&repository_url={quote(index_url(package.index), safe=':/')}" if package.index else found


def _root(plan: Plan) -> dict[str, Any]:
    profile, target = plan.profile, plan.profile.target
    facts = {
        "platform": target.platform,
        "accelerator": target.accelerator,
        "min-os": target.min_os,
        "glibc": target.glibc,
        "python": profile.python.version,
    }
    described = {"description": profile.description} if profile.description else {}
    return {
        "type": "platform",
        "bom-ref": plan.store_name,
        "name": profile.name,
        "version": plan.key,
        **described,
        "properties": [{"name": f"drydock:{name}", "value": value} for name, value in facts.items() if value],
    }


def _component(plan: Plan, package: Artefact, licences: Mapping[str, Licence], scope: str) -> dict[str, Any]:
    found = licences.get(package.name)
    patches = [_patch(plan, patch) for patch in plan.lock.patches if patch.package == package.name]
    return {
        "type": "library",
        "bom-ref": purl(package, plan.profile.index_url),
        "name": package.name,
        "version": package.version,
        "scope": scope,
        "hashes": [{"alg": "SHA-256", "content": package.sha256}],
        **({"licenses": _licences(found)} if found else {}),
        "purl": purl(package, plan.profile.index_url),
        **({"pedigree": {"patches": patches}} if patches else {}),
    }


def _python(python: Artefact) -> dict[str, Any]:
    """The Python, where the lock names its archive."""
    found = f"pkg:generic/cpython@{quote(python.version, safe='')}?file_name={quote(python.file, safe='')}"
    return {
        "type": "application",
        "bom-ref": found,
        "name": "cpython",
        "version": python.version,
        "description": python.index,
        "scope": "required",
        "hashes": [{"alg": "SHA-256", "content": python.sha256}],
        "purl": found,
    }


def _licences(found: Licence) -> list[dict[str, Any]]:
    if found.expression:
        return [{"expression": found.expression, "acknowledgement": "declared"}]
    return [{"license": {"name": name, "acknowledgement": "declared"}} for name in found.names]


def _patch(plan: Plan, patch: LockedPatch) -> dict[str, Any]:
    why = next(one.why for one in plan.profile.patches if one.file == patch.file)
    return {
        "type": "unofficial",
        "diff": {"text": {"contentType": "text/x-diff", "content": plan.texts[patch.file]}},
        "resolves": [{"type": "defect", "name": patch.file, "description": why}],
    }


def _dependencies(plan: Plan) -> list[dict[str, Any]]:
    """Return which package requires which, from the lock; `profile` there is the root."""
    refs = {package.name: purl(package, plan.profile.index_url) for package in plan.lock.packages}
    python = [_python(plan.lock.python)["bom-ref"]] if plan.lock.python else []
    needs: dict[str, list[str]] = {
        plan.store_name: python,
        **{ref: [] for ref in python},
        **{ref: [] for ref in refs.values()},
    }
    for package in plan.lock.packages:
        for parent in package.required_by:
            needs[plan.store_name if parent in ("profile", "override") else refs[parent]].append(refs[package.name])
    return [{"ref": ref, "dependsOn": sorted(set(on))} for ref, on in needs.items()]
