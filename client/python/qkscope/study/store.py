"""The file of results: SQLite, one transaction per unit of work.

A unit is one prompt under all arms of the study. Its key is a digest of all
that decides its result (the model's weights, the prompt, the arms, the sampling), so
that a file never mixes results of different work. A file is made whole: the
plan, all units, is in it before it takes its place.

A file may come from somebody else. Opening one checks that it is a database, is
whole, has this schema, and belongs to the study at hand.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from qkscope.errors import QkscopeError
from qkscope.study import schema, spec
from qkscope.study.errors import StudyError, excerpt, replaced
from qkscope.study.records import (Answer, ComparisonRow, LayerRow, Outcome,
                                   Unit)
from qkscope.study.tasks.item import Item

FORMAT = "qkscope study results"
VERSION = 1
_APPLICATION_ID = 0x716B7374  # "qkst", as the database's application_id
_MAX_MANIFEST = 64 << 20


class Store:
    """An open file. Not for several threads at once; several processes exclude
    each other by the database's own locks."""

    def __init__(self, connection: sqlite3.Connection, path: pathlib.Path
                 ) -> None:
        self._db, self.path = connection, path
        self._dictionaries: dict[str, bytes] = {}
        self._study: spec.Study | None = None

    @classmethod
    def create(cls, path: pathlib.Path, study: spec.Study,
               models: dict[str, dict[str, Any]], units: list[Unit],
               about: dict[str, str]) -> None:
        """Makes a file with the plan and no results. It takes its place once it
        is whole. `about`: versions and the like, for the report."""
        if not path.parent.is_dir():
            raise StudyError(f"{path} cannot be made: there is no folder "
                             f"{path.parent}")
        with replaced(path) as new, _sentences(path):
            new.unlink(missing_ok=True)
            with contextlib.closing(_connect(new)) as database:
                # Whatever ends the process, this file is made anew.
                database.execute("PRAGMA journal_mode = MEMORY")
                database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                database.execute("BEGIN")
                for statement in schema.TABLES.split(";"):
                    database.execute(statement)
                _write_plan(database, study, models, units, about)
                database.execute("COMMIT")

    @classmethod
    def resume(cls, path: pathlib.Path, study: spec.Study) -> Store:
        """Opens the file of this study, to add results to it."""
        store = cls.open(path)
        if store.study.digest != study.digest:
            other = _difference(store.study, study)
            store.close()
            raise StudyError(f"{path} has the results of another study, "
                             f"{excerpt(store.study.name)} ({other}): name "
                             "another file")
        with _sentences(path):
            store._db.execute("PRAGMA journal_mode = WAL")
        return store

    @classmethod
    def open(cls, path: pathlib.Path) -> Store:
        """Opens results. StudyError: they cannot be used, and why."""
        if not path.is_file():
            raise StudyError(f"{path} does not exist")
        with _sentences(path):
            connection = _connect(path)
            try:
                store = cls(connection, path)
                store._check()
            except BaseException:
                connection.close()
                raise
            return store

    def _check(self) -> None:
        if self._one("PRAGMA application_id") != _APPLICATION_ID:
            raise StudyError(f"{self.path} is a database, but not a file of "
                             "results of qkscope.study")
        with contextlib.closing(sqlite3.connect(":memory:")) as right:
            right.executescript(schema.TABLES)
            names = "SELECT type, name, sql FROM sqlite_master ORDER BY name"
            if list(self._rows(names)) != list(right.execute(names)):
                raise StudyError(f"{self.path} has other tables than results "
                                 "of this package")
        if self._one("PRAGMA quick_check(1)") != "ok":
            raise StudyError(f"{self.path} is damaged: restore it, or begin "
                             "anew with another file")
        version = self._meta("version")
        if self._meta("format") != FORMAT or version != str(VERSION):
            raise StudyError(f"{self.path} has version {excerpt(version)} of "
                             f"the results; this package reads version {VERSION}")
        self._study = self._read_study()
        known = {"model": [model.name for model in self._study.models],
                 "task": [task.name for task in self._study.tasks],
                 "arm": list(self._study.arms)}
        for table, column in [("units", "model"), ("units", "task"),
                              ("models", "name"), ("answers", "arm"),
                              ("layers", "arm"), ("comparisons", "arm")]:
            allowed = known["model" if column == "name" else column]
            for (name,) in self._rows(f"SELECT DISTINCT {column} FROM {table}"):
                if name not in allowed:
                    raise StudyError(f"{self.path}: {table} names "
                                     f"{excerpt(name)}, which is not in its "
                                     "study")

    @contextlib.contextmanager
    def understood(self) -> Iterator[None]:
        """What is done inside reads values that a study has written; those of
        another hand end with a sentence."""
        try:
            yield
        except QkscopeError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError,
                OverflowError) as error:
            raise StudyError(f"{self.path} holds a value that no study writes: "
                             f"{excerpt(str(error))}") from error

    # ------------------------------------------------------------- the plan

    @property
    def study(self) -> spec.Study:
        """The study that the file belongs to."""
        if self._study is None:
            self._study = self._read_study()
        return self._study

    def _read_study(self) -> spec.Study:
        place = f"{self.path}: the study in it"
        try:
            values = json.loads(self._meta("study"))
            values["lambda"] = values.pop("lambda_")
            values["tasks"] = [
                {key: value for key, value in
                 {**task.pop("options"), **task}.items() if value is not None}
                for task in values["tasks"]]
        except (ValueError, TypeError, KeyError, AttributeError,
                RecursionError) as error:
            raise StudyError(f"{place} cannot be read") from error
        return spec.from_values(values, place)

    def models(self) -> dict[str, dict[str, Any]]:
        """What the server said of each model."""
        return {name: self._json(text, f"model {name}") for name, text
                in self._rows("SELECT name, info FROM models ORDER BY name")}

    def about(self) -> dict[str, str]:
        return {key.partition(".")[2]: value for key, value in self._rows(
            "SELECT key, value FROM meta WHERE key LIKE 'about.%' "
            "ORDER BY key")}

    def units(self, *, pending: bool = False) -> Iterator[Unit]:
        """The units in their order; those without a result only."""
        where = ("WHERE place NOT IN (SELECT unit FROM results)" if pending
                 else "")
        for key, model, task, item, seed, data in self._rows(
                "SELECT key, model, task, item, seed, content FROM units "
                f"{where} ORDER BY place"):
            content = self._json(_unpacked(data, None, self.path),
                                 f"unit {key}")
            try:
                yield Unit(key, model, task, seed, Item(
                    item, content["question"], content["answer"],
                    content["detail"]), content["prompt"])
            except (KeyError, TypeError) as error:
                raise StudyError(f"{self.path}: unit {excerpt(key)} cannot be "
                                 "read") from error

    def counts(self) -> tuple[int, int]:
        """(units with a result, all units)."""
        return (self._one("SELECT count(*) FROM results"),
                self._one("SELECT count(*) FROM units"))

    # ------------------------------------------------------------- results

    def add(self, unit: Unit, outcome: Outcome) -> None:
        """Writes one unit's result, in one transaction."""
        # Manifests of a task are nearly equal: the first one is the others'
        # dictionary.
        dictionary = f"{unit.model}/{unit.task}"
        place = self._rows("SELECT place FROM units WHERE key = ?",
                           unit.key)[0][0]
        text = json.dumps(outcome.manifest, sort_keys=True,
                          separators=(",", ":")).encode()
        with self._transaction():
            words = self._dictionary(dictionary)
            if words is None:
                words = text[-32768:]  # deflate looks no further back
                self._db.execute("INSERT INTO dictionaries VALUES (?, ?)",
                                 (dictionary, zlib.compress(words, 9)))
            packer = zlib.compressobj(9, zdict=words)
            packed = packer.compress(text) + packer.flush()
            self._db.execute("INSERT INTO results VALUES (?, ?, ?, ?, ?)", (
                place, outcome.seconds, outcome.prompt_tokens, dictionary,
                packed))
            self._insert("answers", place, outcome.answers)
            self._insert("comparisons", place, outcome.comparisons)
            self._db.executemany(
                "INSERT INTO layers VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                [(place, row.arm, row.point, row.layer, row.massive_count,
                  row.ratio, row.max, row.top_dim, row.top_dim_share,
                  row.low_frequency_share, int(row.no_rope))
                 for row in outcome.layers])
            self._db.executemany(
                "INSERT INTO norms VALUES (?,?,?,?,?,?)",
                [(place, row.arm, row.point, row.layer,
                  json.dumps(row.norms[0]), zlib.compress(row.norms[1], 9))
                 for row in outcome.layers if row.norms])
        self._dictionaries[dictionary] = words

    def _insert(self, table: str, place: int,
                rows: Sequence[Answer | ComparisonRow]) -> None:
        for row in rows:
            values = (place, *dataclasses.astuple(row))
            marks = ", ".join("?" * len(values))
            self._db.execute(f"INSERT INTO {table} VALUES ({marks})", values)

    def _dictionary(self, name: str) -> bytes | None:
        if name not in self._dictionaries:
            rows = self._rows("SELECT data FROM dictionaries WHERE id = ?",
                              name)
            if not rows:
                return None
            self._dictionaries[name] = _unpacked(rows[0][0], None, self.path)
        return self._dictionaries[name]

    def manifest(self, key: str) -> dict[str, Any]:
        """The manifest of a unit's analysis, as JSON. StudyError: the unit has
        no result."""
        rows = self._rows("SELECT dictionary, manifest FROM results JOIN units "
                          "ON unit = place WHERE key = ?", key)
        if not rows:
            raise StudyError(f"{self.path}: unit {excerpt(key)} has no result")
        text = _unpacked(rows[0][1], self._dictionary(rows[0][0]), self.path)
        found: dict[str, Any] = self._json(
            text, f"the manifest of {excerpt(key)}")
        return found

    def answers(self) -> Iterator[tuple[str, Answer]]:
        """(unit's key, answer), by unit and arm."""
        for key, _, *values in self._rows(
                "SELECT key, answers.* FROM answers JOIN units ON unit = place "
                "ORDER BY place, arm"):
            yield key, Answer(*values)

    def comparisons(self) -> Iterator[tuple[str, ComparisonRow]]:
        for key, _, *values in self._rows(
                "SELECT key, comparisons.* FROM comparisons JOIN units ON unit "
                "= place ORDER BY place, arm"):
            yield key, ComparisonRow(*values)

    def layers(self) -> Iterator[tuple[str, LayerRow]]:
        """(unit's key, statistics of a layer); norms only where kept."""
        for key, _, *values, no_rope, shape, data in self._rows(
                "SELECT key, layers.*, shape, data FROM layers JOIN units ON "
                "unit = place LEFT JOIN norms USING (unit, arm, point, layer) "
                "ORDER BY place, arm, point, layer"):
            norms = None
            if shape is not None:
                norms = (tuple(self._json(shape, "a shape")),
                         _unpacked(data, None, self.path))
            yield key, LayerRow(*[*values, bool(no_rope), norms])

    def results(self) -> Iterator[tuple[str, float, int]]:
        """(unit's key, seconds, prompt tokens)."""
        yield from self._rows("SELECT key, seconds, prompt_tokens FROM results "
                              "JOIN units ON unit = place ORDER BY place")

    def close(self) -> None:
        """Ends WAL mode as far as no other process has the file open, so that
        what is left is one file."""
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    # ------------------------------------------------------------- SQLite

    def _rows(self, statement: str, *values: object) -> list[Any]:
        with _sentences(self.path):
            return self._db.execute(statement, values).fetchall()

    def _one(self, statement: str) -> Any:
        return self._rows(statement)[0][0]

    def _meta(self, key: str) -> str:
        rows = self._rows("SELECT value FROM meta WHERE key = ?", key)
        return str(rows[0][0]) if rows else ""

    def _json(self, text: str | bytes, what: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise StudyError(f"{self.path}: {what} cannot be read") from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with _sentences(self.path), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield


def _connect(path: pathlib.Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _write_plan(database: sqlite3.Connection, study: spec.Study,
                models: dict[str, dict[str, Any]], units: list[Unit],
                about: dict[str, str]) -> None:
    database.executemany("INSERT INTO meta VALUES (?, ?)", [
        ("format", FORMAT), ("version", str(VERSION)),
        ("study", study.to_json()),
        *(("about." + key, value) for key, value in about.items())])
    database.executemany("INSERT INTO models VALUES (?, ?)", [
        (name, json.dumps(info)) for name, info in models.items()])
    database.executemany("INSERT INTO units VALUES (?, ?, ?, ?, ?, ?, ?)", [
        (place, unit.key, unit.model, unit.task, unit.item.id, unit.seed,
         _content(unit)) for place, unit in enumerate(units)])


def _content(unit: Unit) -> bytes:
    return zlib.compress(json.dumps({
        "question": unit.item.question, "answer": unit.item.answer,
        "detail": unit.item.detail, "prompt": unit.prompt}).encode(), 9)


def _unpacked(data: bytes, words: bytes | None, path: pathlib.Path) -> bytes:
    unpacker = (zlib.decompressobj(zdict=words) if words is not None
                else zlib.decompressobj())
    try:
        text = unpacker.decompress(data, _MAX_MANIFEST)
        if not unpacker.eof:
            raise zlib.error("too long, or cut off")
        return text
    except (zlib.error, TypeError) as error:
        raise StudyError(f"{path} is damaged: compressed data cannot be read"
                         ) from error


@contextlib.contextmanager
def _sentences(path: pathlib.Path) -> Iterator[None]:
    """Turns SQLite's errors into a sentence."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise StudyError(f"{path} is damaged: a text is not UTF-8") from error
    except sqlite3.DatabaseError as error:
        text = str(error)
        if "locked" in text or "busy" in text:
            why = "is in use by another process"
        elif "full" in text:
            why = "cannot be written: the disk is full"
        elif "readonly" in text or "unable to open" in text:
            why = "cannot be opened or written"
        elif "not a database" in text:
            why = "is no SQLite database, so no file of results"
        else:
            why = f"is damaged, or no file of results ({text})"
        raise StudyError(f"{path} {why}") from error


def _difference(old: spec.Study, new: spec.Study) -> str:
    for field in dataclasses.fields(spec.Study):
        if getattr(old, field.name) != getattr(new, field.name):
            return f"its {field.name.rstrip('_')} differs"
    return "its study differs"
