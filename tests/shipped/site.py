"""The documentation as readers get it: built, served on loopback, and looked at. `just screenshots` writes pictures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.support.browser import Browser
from tests.support.web import Web

PHONE, DESK = 390, 1280
SCHEMES = ("light", "dark")


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site into a folder; each broken link is an error."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def pages(site: Path) -> list[str]:
    """The paths of its pages, as a reader has them in the address: "", "install/"."""
    return sorted(f"{path.parent.relative_to(site)}/".removeprefix("./") for path in site.rglob("index.html"))


def _main(folder: Path, only: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    site = folder / "site"
    done = build(site)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    with Web(site) as web, Browser() as browser:
        for page in pages(site):
            if only and not any(part in (page or "index") for part in only):
                continue
            browser.go(f"{web.url}/{page}")
            for width in (PHONE, DESK):
                for scheme in SCHEMES:
                    browser.look(width, scheme)
                    name = page.rstrip("/").replace("/", "-") or "index"
                    (folder / f"{name}-{width}-{scheme}.png").write_bytes(browser.picture())
    print(folder)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2:])
