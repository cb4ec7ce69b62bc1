"""Reads the status page as a person does: sections, facts, tables, maps."""

import http.client
import re

from html_page import StrictPage
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


class Page(StrictPage):
    """`state`, `facts`, `tables` (heading -> rows by name -> column -> text),
    `maps` and `numbers` (model -> Q, K, V), `notes`, `links`."""

    VOID = StrictPage.VOID | {"rect", "path", "circle"}
    TEXT = {"h1", "h2", "dt", "dd", "td", "th", "p", "title", "figcaption"}

    def __init__(self, text):
        self.title = self.state = None
        self.facts, self.tables, self.maps, self.numbers = {}, {}, {}, {}
        self.notes, self.links = [], []
        self._heading = self._term = None
        self._head, self._cells = [], []
        self._caption, self._shift = None, 0
        super().__init__(text)

    def begin(self, tag, values):
        if tag == "path" and "d" in values and self._caption:
            self._draw(values)
        elif tag == "g":
            x = float(re.match(r"translate\((\d+)", values["transform"])[1])
            self._shift = round((x - 26) / 10)
        elif tag == "a":
            self.links.append(values["href"])
        elif tag == "tr":
            self._cells = []

    def end(self, tag, values, said):
        if tag == "title":
            self.title = said
        elif tag == "h2":
            self._heading, self._caption = said, None
        elif tag == "figcaption":
            self._caption = said.split()[0]
        elif tag == "p" and "state" in values.get("class", ""):
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
        if self.inside("thead"):
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
