"""A real browser that opens a page at a width, light or dark, and says what a reader would meet there."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# The page stands in a frame of the width asked for; what is measured there becomes the outer page's text.
OUTER = """<!doctype html><meta charset="utf-8"><style>body { margin: 0 } iframe { border: 0 }</style>
<iframe width="WIDTH" height="HEIGHT" srcdoc="PAGE"></iframe>
<pre id="measured"></pre><script>onload = () => { MEASURE }</script>"""

MEASURE = """
const inside = document.querySelector("iframe").contentDocument, root = inside.documentElement;
for (const details of inside.querySelectorAll("details")) details.open = true;
const channels = (colour) => (colour.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
const over = (top, below) => { const a = top[3] ?? 1; return below.map((b, i) => a * top[i] + (1 - a) * b); };
const light = (colour) => colour.slice(0, 3)
  .map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (element) => {
  const above = [];
  for (let e = element; e; e = e.parentElement) above.push(channels(inside.defaultView.getComputedStyle(e).backgroundColor));
  return above.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
};
const faint = [];
for (const element of inside.querySelectorAll("main *")) {
  // numbers on strong cells, whose ground is part of a picture, are checked where their colours are chosen
  const words = [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data).join("").trim();
  if (!words || !element.checkVisibility()) continue;
  const style = inside.defaultView.getComputedStyle(element), svg = element.namespaceURI.endsWith("svg");
  if (svg && (!["text", "tspan"].includes(element.localName) || style.fill === "rgb(255, 255, 254)")) continue;
  const below = ground(element), ink = over(channels(svg ? style.fill : style.color), below);
  const [one, other] = [light(ink), light(below)].sort((a, b) => b - a), contrast = (one + 0.05) / (other + 0.05);
  if (contrast < 4.5) faint.push(`${words.slice(0, 30)}: ${contrast.toFixed(2)}`);
}
const first = inside.querySelector("table.sortable"), button = first.querySelector("thead th:nth-child(2) button");
button.click();
const sorted = [...first.tBodies[0].rows].map((row) => Number(row.cells[1].dataset.sort));
const mark = inside.querySelector(".values [data-tip]");
mark.dispatchEvent(new inside.defaultView.PointerEvent("pointerover", { bubbles: true }));
document.querySelector("#measured").textContent = JSON.stringify({
  overflow: root.scrollWidth - root.clientWidth, faint, sorted, tip: inside.querySelector(".tip").textContent,
  unnamed: [...inside.querySelectorAll("[role=img], img")].filter((e) => !(e.getAttribute("aria-label") || e.alt)).length,
  height: root.scrollHeight,
});
"""


def _command(page: Path, dark: bool, *more: str) -> list[str]:
    assert BROWSER is not None
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    plain = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr", scheme]
    return [BROWSER, *plain, f"--user-data-dir={page.parent / 'profile'}", *more, page.as_uri()]


def visited(page: Path, folder: Path, width: int, dark: bool) -> dict[str, Any]:
    """What is to be seen of a page at that width, and `errors`: what the browser's console said."""
    outer = folder / f"{width}-{dark}.html"
    filled = OUTER.replace("WIDTH", str(width)).replace("HEIGHT", "900").replace("MEASURE", MEASURE)
    outer.write_text(filled.replace("PAGE", html.escape(page.read_text(encoding="utf-8"))), encoding="utf-8")
    done = subprocess.run(_command(outer, dark, "--dump-dom"), capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="measured">(.*?)</pre>', done.stdout, re.DOTALL)
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert found and found[1], errors or done.stderr[-2000:]
    return json.loads(html.unescape(found[1])) | {"errors": errors}


def pictured(page: Path, picture: Path, width: int, height: int, dark: bool) -> None:
    """A screenshot of the upper `height` pixels, to be looked at."""
    outer = picture.with_suffix(".html")
    filled = OUTER.replace("WIDTH", str(width)).replace("HEIGHT", str(height)).replace("MEASURE", "")
    outer.write_text(filled.replace("PAGE", html.escape(page.read_text(encoding="utf-8"))), encoding="utf-8")
    size = f"--window-size={width},{height}"
    subprocess.run(_command(outer, dark, size, f"--screenshot={picture}"), capture_output=True, check=True, timeout=120)
