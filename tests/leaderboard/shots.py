"""Pictures of a built site, as CONTRIBUTING.md says: `python tests/leaderboard/shots.py SITE TARGET`.

Every kind of page, light and dark, wide and as on a phone; `board.png` and `session.png` are what the README shows.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

WIDTHS = {"wide": 1200, "phone": 375}


def main(site: Path, target: Path) -> None:
    from playwright.sync_api import sync_playwright

    target.mkdir(parents=True, exist_ok=True)
    pages = {"board": site / "index.html", "method": site / "method.html"}
    for kind in ("session", "device"):
        found = sorted((site / kind).glob("*.html"))
        pages |= {kind: found[0]} if found else {}
    with sync_playwright() as player:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = player.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        for scheme in ("light", "dark"):
            for width_name, width in WIDTHS.items():
                page = browser.new_page(
                    viewport={"width": width, "height": 900}, color_scheme=scheme, device_scale_factor=1.5
                )
                for name, path in pages.items():
                    page.goto(path.as_uri())
                    page.screenshot(path=target / f"{name}-{scheme}-{width_name}.png", full_page=True)
                page.close()
        page = browser.new_page(viewport={"width": 1200, "height": 800}, device_scale_factor=2)
        for name in ("board", "session"):
            if name in pages:
                page.goto(pages[name].as_uri())
                if name == "board":  # the answer and all that is ranked, rather than the heading
                    page.locator(".now").scroll_into_view_if_needed()
                    page.evaluate("scrollTo(0, document.querySelector('.now').offsetTop - 16)")
                page.screenshot(path=target / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
