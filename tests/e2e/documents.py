"""Reads the project's Markdown: code blocks, shell commands, links."""

import re

from processes import ROOT


def documents():
    """Returns all Markdown files by their paths from the root."""
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"),
             *ROOT.glob("client/python/*.md"), *ROOT.glob("tests/**/*.md")]
    return {file.relative_to(ROOT).as_posix(): file.read_text("utf-8")
            for file in sorted(files)}


def blocks(text, language):
    """Returns the contents of the fenced blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def prose(text):
    """Returns the text without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def commands(text):
    """Returns the `sh` blocks' commands, each on one line, without comments."""
    lines = []
    for block in blocks(text, "sh"):
        lines += re.sub(r"\\\n\s*", "", block).splitlines()
    return [re.sub(r"\s+# .*", "", line) for line in lines]


def links(text):
    """Returns the targets of links and pictures that are not on the web."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(text))
    return [target for target in targets if "://" not in target]


def anchors(text):
    """Returns the anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-")
            for heading in headings}


def named_paths(text):
    """Returns source paths in backquotes, except those with wildcards."""
    return re.findall(
        r"`((?:client|deploy|docs|engine|proto|server|tests)/[\w./-]*)`",
        prose(text))
