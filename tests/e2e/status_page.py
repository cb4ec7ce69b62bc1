"""Reads the status page as a person does: sections, facts, tables, maps."""

import html.parser
import http.client
import re

from processes import PATIENCE_S

# The colour of a count in a heat map: 0, 1, 2 to 3, 4 to 7, ..., 128 or more.
COLOURS = 9


def colour(count):
    return min(COLOURS - 1, count.bit_length())


def get(server, path="/", token=None, method="GET"):
    """Returns an answer's status, headers and text."""
    host, port = server.metrics_address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port),
                                            timeout=PATIENCE_S)
    connection.request(method, path, headers={
        "Authorization": f"Bearer {token}"} if token else {})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.getheaders()), text


class Page(html.parser.HTMLParser):
    """`state`, `facts`, `tables` (heading -> rows by name -> column -> text),
    `maps` and `numbers` (model -> Q, K, V), `notes`, `links`."""

    VOID = {"meta", "link", "br", "rect", "path", "circle"}

    def __init__(self, text):
        super().__init__()
        self.text = text
        self.title = self.state = None
        self.facts, self.tables, self.maps, self.numbers = {}, {}, {}, {}
        self.notes, self.links = [], []
        self._open, self._words = [], []
        self._heading = self._term = self._row = self._column = None
        self._head, self._cells = [], []
        self._caption, self._shift = None, 0
        self.feed(text)
        self.close()
        if self._open:
            raise AssertionError(f"not closed: {self._open}")

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag in self.VOID:
            if tag == "path" and "d" in values and self._caption:
                self._draw(values)
            return
        self._open.append((tag, values.get("class", "")))
        if tag == "g":
            x = float(re.match(r"translate\((\d+)", values["transform"])[1])
            self._shift = round((x - 26) / 10)
        if tag == "a":
            self.links.append(values["href"])
        if tag == "tr":
            self._cells = []
        if tag in ("h1", "h2", "dt", "dd", "td", "th", "p", "title",
                   "figcaption"):
            self._words = []

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_data(self, data):
        self._words.append(data)

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        opened, style = self._open.pop()
        if opened != tag:
            raise AssertionError(f"<{opened}> is closed by </{tag}>")
        said = " ".join("".join(self._words).split())
        if tag == "title":
            self.title = said
        elif tag == "h2":
            self._heading, self._caption = said, None
        elif tag == "figcaption":
            self._caption = said.split()[0]
        elif tag == "p" and "state" in style:
            self.state = said
        elif tag == "p":
            self.notes.append(said)
        elif tag == "dt":
            self._term = said
        elif tag == "dd":
            self.facts[self._heading, self._term] = said
        elif tag in ("td", "th"):
            self._cells.append(said)
        elif tag == "tr":
            self._end_row()

    def _end_row(self):
        if any(opened == "thead" for opened, _ in self._open):
            self._head = self._cells
        elif self._head[0] == "Layer":
            self.numbers.setdefault(self._model(), []).append(self._cells)
        else:
            self.tables.setdefault(self._heading, {})[self._cells[0]] = dict(
                zip(self._head, self._cells))

    def _model(self):
        return self._heading.removeprefix("Activations of ")

    def _draw(self, values):
        cells = self.maps.setdefault(self._model(), {}).setdefault(
            self._caption, {})
        if not re.fullmatch("c[0-8x]", values["class"]):
            return  # a mark, or of the legend
        for x, layer, length in re.findall(r"M(\d+) (\d+)h(\d+)", values["d"]):
            for column in range(int(x), int(x) + int(length)):
                place = self._shift + column, int(layer)
                if place in cells:
                    raise AssertionError(f"two cells at {place}")
                cells[place] = values["class"]


def seconds(text):
    """A duration as the page shows it."""
    units = {"d": 86400, "h": 3600, "min": 60, "s": 1, "ms": 1e-3}
    words = text.split()
    return sum(float(number) * units[unit]
               for number, unit in zip(words[::2], words[1::2]))
