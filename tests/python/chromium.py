"""Headless Chromium: what a page does, and pictures of it."""

import json
import pathlib
import re
import subprocess

# Longer than a page ever takes: a test that reaches it hangs.
PATIENCE_S = 600

# Shows a page in a frame, since its policy lets no script of ours into it, and
# writes what SCRIPT returns where --dump-dom shows it. SCRIPT gets the frame's
# `page` (document) and `view` (window).
PROBE = """<!doctype html><meta charset="utf-8"><body><script>
window.hacked = 0;
const frame = document.createElement("iframe");
frame.style = "border: 0; width: WIDTHpx; height: 1200px";
SANDBOX
frame.onload = () => {
  const page = frame.contentDocument, view = frame.contentWindow;
  let found;
  try {
    found = (() => { SCRIPT })();
  } catch (error) {
    found = {error: String(error.stack)};
  }
  document.body.textContent = "FOUND" + JSON.stringify(found) + "DNUOF";
};
frame.srcdoc = PAGE;
document.body.append(frame);
</script>
"""


def chromium(folder, *flags):
    return subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars",
         "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={pathlib.Path(folder) / 'chromium'}", *flags],
        stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
        timeout=PATIENCE_S, check=True)


def console(result):
    """What the page's console says: refusals of its policy, errors."""
    return [line for line in result.stderr.splitlines() if "CONSOLE" in line]


def probe(folder, html, script, width=1200, scripts=True):
    """Returns what the script finds in the page, and the console's lines.
    Without `scripts` those of the page do not run."""
    sandbox = "" if scripts else 'frame.sandbox = "allow-same-origin";'
    page = PROBE.replace("WIDTH", str(width)).replace("SANDBOX", sandbox)
    page = page.replace("SCRIPT", script).replace(
        "PAGE", json.dumps(html).replace("</", "<\\/").replace(
            "<!--", "<\\u0021--"))
    file = pathlib.Path(folder) / "probe.html"
    file.write_text(page, encoding="utf-8")
    result = chromium(folder, "--window-size=1280,1200", "--dump-dom",
                      file.as_uri())
    found = re.search("FOUND(.*)DNUOF", result.stdout, re.S)
    text = found[1].replace("&lt;", "<").replace("&gt;", ">").replace(
        "&amp;", "&")
    return json.loads(text), console(result)


def screenshot(folder, page, file, width=1200, height=2600):
    """Takes a picture of a page; returns the console's lines."""
    return console(chromium(
        folder, f"--window-size={width},{height}", f"--screenshot={file}",
        pathlib.Path(page).as_uri()))
