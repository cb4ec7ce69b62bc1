"""Reads pages whose elements must close as they opened."""

import html.parser


class StrictPage(html.parser.HTMLParser):
    """Subclasses say what an element means: `begin(tag, values)` when it opens,
    `end(tag, values, said)` when it closes; `said` is the text since the last
    element of TEXT began. They set their own attributes before this
    constructor, which reads the whole page."""

    VOID = {"meta", "link", "br"}
    TEXT = set()

    def __init__(self, text):
        super().__init__()
        self.text = text
        self._open, self._words = [], []
        self.feed(text)
        self.close()
        if self._open:
            raise AssertionError(f"not closed: {self._open}")

    def inside(self, tag):
        return any(opened == tag for opened, _ in self._open)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in self.VOID:
            self._open.append((tag, values))
        if tag in self.TEXT:
            self._words = []
        self.begin(tag, values)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_data(self, data):
        self._words.append(data)

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        opened, values = self._open.pop()
        if opened != tag:
            raise AssertionError(f"<{opened}> is closed by </{tag}>")
        self.end(tag, values, " ".join("".join(self._words).split()))
