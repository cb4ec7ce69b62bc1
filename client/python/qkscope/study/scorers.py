"""Whether an answer is right: as the published code decides, and strictly.

`paper_code` does what the code of arXiv:2502.01563 does, quirks included: its
words are substrings, so that "No, that is incorrect." is a yes ("correct") and
so is "No, it is in Tokyo." ("ok"). `strict` looks for whole words, and the
first verdict counts. Both are functions of an item and an answer, and return
what they read the answer as ("yes", "12", "B", or None) and whether it is
right.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

from qkscope.study.errors import StudyError, choices
from qkscope.study.tasks.item import Item


@dataclasses.dataclass(frozen=True)
class Verdict:
    read_as: str | None
    right: bool


Scorer = Callable[[Item, str], Verdict]

_YES = ("yes", "true", "correct", "right", "ok")
_NO = ("no", "false", "incorrect", "wrong")
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?", re.ASCII)


def _compared(item: Item, read_as: str | None) -> Verdict:
    return Verdict(read_as, read_as is not None and read_as == item.answer)


# ---------------------------------------------------------- the published code

def _paper_yes_no(item: Item, text: str) -> Verdict:
    lower = text.lower()
    if any(word in lower for word in _YES):
        return _compared(item, "yes")
    if any(word in lower for word in _NO):
        return _compared(item, "no")
    return Verdict(None, False)


def _paper_choice(item: Item, text: str) -> Verdict:
    """Right if the text of the correct option, which is all after "A)", is
    anywhere in the answer."""
    for option in item.detail["options"]:
        if option.startswith(item.answer):
            right = option[2:] in text
            return Verdict(item.answer if right else None, right)
    return Verdict(None, False)


def _paper_number(item: Item, text: str) -> Verdict:
    """The last number, without its sign; the same in the solution."""
    found, wanted = _NUMBER.findall(text), _NUMBER.findall(item.answer)
    if not found or not wanted:
        return Verdict(None, False)
    last, right = (float(values[-1].replace(",", ""))
                   for values in (found, wanted))
    return Verdict(found[-1], last == right)


def _paper_sentiment(item: Item, text: str) -> Verdict:
    lower = text.lower()
    said = [word for word in ("positive", "negative") if word in lower]
    return _compared(item, said[0] if len(said) == 1 else None)


def _paper_passkey(item: Item, text: str) -> Verdict:
    """The first number of the context is the key; it must be a substring."""
    numbers = re.findall(r"\d+", item.question)
    right = bool(numbers) and numbers[0] in text
    return Verdict(numbers[0] if right else None, right)


# ---------------------------------------------------------- strict

# An adverb may stand between: "not entirely correct".
_NOT = r"\b(?:not|isn't|isn\u2019t|never)\s+(?:\w+\s+)?"
_VERDICT = re.compile(
    rf"(?P<no>{_NOT}(?:true|correct|right)\b|\b(?:no|false|incorrect|wrong)\b)"
    r"|(?P<yes>\b(?:yes|true|correct|right)\b)", re.I)
_SENTIMENT = re.compile(
    rf"(?P<negative>{_NOT}positive\b|\bnegative\b)"
    rf"|(?P<positive>{_NOT}negative\b|\bpositive\b)", re.I)
_SIGNED = re.compile(r"(?<![\d.,])-?\d+(?:,\d{3})*(?:\.\d+)?(?![\d])", re.ASCII)
_TOLD = re.compile(r"(?:answer(?:\s+is|\s*:)|####|\\boxed\{)\s*[^\d\-\n]{0,12}?"
                   r"(-?\d+(?:,\d{3})*(?:\.\d+)?)", re.I | re.ASCII)
_LETTER = re.compile(
    r"(?:answer|option|choice)(?:\s+is)?\s*:?\s*\(?([B-E]\b|A\b(?!\s[a-z]))"
    r"|^\s*\(?([A-E])\)|^\s*([A-E])[.:]?\s*$|\(([A-E])\)", re.M)


def _strict_yes_no(item: Item, text: str) -> Verdict:
    found = _VERDICT.search(text)
    return _compared(item, found.lastgroup if found else None)


def _strict_sentiment(item: Item, text: str) -> Verdict:
    found = _SENTIMENT.search(text)
    return _compared(item, found.lastgroup if found else None)


def _number(text: str) -> Decimal | None:
    try:
        return Decimal(text.replace(",", ""))
    except InvalidOperation:
        return None


def _strict_number(item: Item, text: str) -> Verdict:
    """The last number that is called the answer, else the last one."""
    found = _TOLD.findall(text) or _SIGNED.findall(text)
    if not found:
        return Verdict(None, False)
    value = _number(found[-1])
    return Verdict(found[-1], value is not None
                   and value == _number(item.answer))


def _strict_choice(item: Item, text: str) -> Verdict:
    """The last letter that is given as the answer, else the only option whose
    text stands in the answer, as whole words."""
    found = _LETTER.findall(text)
    if found:
        return _compared(item, next(filter(None, found[-1])))
    named = [option[:1] for option in item.detail["options"]
             if re.search(rf"(?<![\w.]){re.escape(option[2:].strip())}"
                          r"(?!\w|\.\d)", text)]
    return _compared(item, named[0] if len(named) == 1 else None)


def _strict_passkey(item: Item, text: str) -> Verdict:
    found = re.search(r"\d+", text, re.ASCII)
    return _compared(item, found[0] if found else None)


SCORERS: dict[str, dict[str, Scorer]] = {
    "paper_code": {"yes_no": _paper_yes_no, "choice": _paper_choice,
                   "number": _paper_number, "sentiment": _paper_sentiment,
                   "passkey": _paper_passkey},
    "strict": {"yes_no": _strict_yes_no, "choice": _strict_choice,
               "number": _strict_number, "sentiment": _strict_sentiment,
               "passkey": _strict_passkey},
}


def score(scorer: str, kind: str, item: Item, text: str) -> Verdict:
    """Reads an answer. StudyError: there is no such scorer."""
    if scorer not in SCORERS:
        raise StudyError(f"there is no scorer {scorer!r}; it must be "
                         f"{choices(SCORERS)}")
    return SCORERS[scorer][kind](item, text)


def distinct_2(text: str) -> float | None:
    """Different pairs of neighbouring words and marks, of all such pairs;
    None if there is no pair."""
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    pairs = list(zip(words, words[1:]))
    return len(set(pairs)) / len(pairs) if pairs else None
