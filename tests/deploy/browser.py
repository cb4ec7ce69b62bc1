"""Headless Chromium: pictures of pages, and where their elements lie."""

import json
import pathlib
import re
import subprocess
import urllib.parse

from PIL import Image
from programs import PATIENCE_S

# Shows a page in a frame, since a window cannot be narrower than 500 pixels, and
# writes what it measures where --dump-dom shows it. `wide` are the elements that
# stick out on the right.
MEASURE = """<!doctype html><body><script>
const frame = document.createElement("iframe");
frame.style = "border: 0; width: WIDTHpx; height: 1200px";
frame.onload = () => {
  const page = frame.contentDocument;
  const all = selector => [...page.querySelectorAll(selector)];
  const box = e => { const r = e.getBoundingClientRect();
                     return [r.x, r.y, r.width, r.height]; };
  const measured = {
    width: page.documentElement.scrollWidth,
    height: Math.ceil(page.body.getBoundingClientRect().height),
    wide: all("body *").filter(e => e.getBoundingClientRect().right > WIDTH + 1)
        .map(e => e.outerHTML.slice(0, 200)),
    heat: all("svg.heat").map(box),
    view: all("svg.heat").map(
        e => e.getAttribute("viewBox").split(" ").map(Number)),
  };
  document.body.textContent = "MEASURED" + JSON.stringify(measured) + "DERUSAEM";
};
frame.srcdoc = PAGE;
document.body.append(frame);
</script>
"""


def _chromium(folder, *flags):
    return subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars",
         "--disable-gpu", f"--user-data-dir={folder / 'chromium'}", *flags],
        stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
        timeout=PATIENCE_S, check=True)


def screenshot(folder, url, file, width=1280, height=1200, dark=False):
    """Takes a picture; returns it."""
    flags = ["--force-dark-mode"] if dark else []
    _chromium(folder, *flags, f"--window-size={width},{height}",
              f"--screenshot={file}", url)
    return Image.open(file).convert("RGB")


def measure(folder, html, style="", width=1280):
    """Shows a page with the text of its style sheet in it; returns what MEASURE
    finds."""
    if style:
        html, links = re.subn(r'<link rel="stylesheet" [^>]*>',
                              lambda _: f"<style>{style}</style>", html)
        assert links == 1, links
    page = MEASURE.replace("WIDTH", str(width)).replace(
        "PAGE", json.dumps(html).replace("</", "<\\/"))
    file = pathlib.Path(folder) / "measured.html"
    file.write_text(page)
    dom = _chromium(folder, "--window-size=1280,1200", "--dump-dom",
                    "file://" + urllib.parse.quote(str(file))).stdout
    found = re.search("MEASURED(.*)DERUSAEM", dom, re.S)
    text = found[1].replace("&lt;", "<").replace("&gt;", ">").replace(
        "&amp;", "&")
    return json.loads(text)


def save_small(picture, file, colours=256):
    """Saves a picture with few colours, which makes it small."""
    picture.quantize(colours, dither=Image.Dither.NONE).save(file,
                                                             optimize=True)


# Colours.

def themes(style):
    """Returns the custom properties of a style sheet, light and dark."""
    def properties(block):
        return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    light, dark = re.split(r"@media \(prefers-color-scheme: dark\)", style)[:2]
    light = properties(light)
    return {"light": light,
            "dark": {**light, **properties(dark.split("\n}\n")[0])}}


def rgb(colour):
    return tuple(int(colour[i:i + 2], 16) for i in (1, 3, 5))


def luminance(colour):
    """The relative luminance of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
              for c in (value / 255 for value in rgb(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def lightness(colour):
    """L* of CIELAB, 0 to 100."""
    y = luminance(colour)
    return 903.3 * y if y <= 0.008856 else 116 * y ** (1 / 3) - 16


def check_colours(case, style):
    """Texts are readable, and a heat map's colours can be told apart by how
    light they are."""
    for theme, colours in themes(style).items():
        grounds = [colours["page"], colours["card"]]
        for text in ("text", "soft", "link"):
            for ground in grounds:
                case.assertGreaterEqual(contrast(colours[text], ground), 4.5,
                                        (theme, text))
        for state in ("good", "warn", "bad"):
            case.assertGreaterEqual(
                contrast(colours[state], colours[state + "-back"]), 4.5,
                (theme, state))
        for mark in ("part", "high", *(f"s{i}" for i in range(6))):
            if mark in colours:
                case.assertGreaterEqual(
                    contrast(colours[mark], colours["card"]), 3, (theme, mark))
        steps = [lightness(colours[f"c{i}"]) for i in range(9)]
        if theme == "light":
            steps.reverse()
        for lower, higher in zip(steps, steps[1:]):
            case.assertGreater(higher - lower, 6, (theme, steps))
