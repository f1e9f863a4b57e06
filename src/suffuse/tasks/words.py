"""Words of raw text, cut as the files are that entity models learn from, with their places in the text as it came.

White space separates; punctuation and symbols at a word's ends are words of their own, those inside stay
("Jean-Pierre", "3.5"); so do the full stops of initials and abbreviations ("U.N.", "Inc."), and English 's is cut off.
In scripts that are written without spaces each character is a word.
"""

import re
import unicodedata
from collections.abc import Iterator

# Thai, Lao, Myanmar, Khmer, kana, Han; below, what is drawn onto the letter before it.
_UNSPACED = (
    "\u0e01-\u0e7f\u0e81-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3021-\u3029\u3041-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_DRAWN_ON = (
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u17b4-\u17d3\u3099\u309a"
    "\ufe00-\ufe0f\U000e0100-\U000e01ef"
)
_CHUNK = re.compile(rf"[{_UNSPACED}][{_DRAWN_ON}]*|[^\s{_UNSPACED}]+")
_ABBREVIATION = re.compile(
    r"(?:[^\W\d_]\.){2,}|[^\W\d_a-z]\.|"
    r"(?:Mr|Mrs|Ms|Dr|Prof|Rev|Gen|Lt|Col|Sgt|Capt|Sen|Rep|Gov|St|Mt|Ft|Jr|Sr|Inc|Corp|Ltd|Co|Bros|vs|No)\."
)
_POSSESSIVE = re.compile(r"['\u2019][sS](?!\w)")


def word_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of each word of a text, in characters, in order; control and format characters are in none."""
    return [span for chunk in _CHUNK.finditer(text) for span in _words(text, *chunk.span())]


def found_spans(text: str, words: list[str]) -> list[tuple[int, int]] | int:
    """Start and end of given words, looked for one after another in their text; where one is not found, its place."""
    spans: list[tuple[int, int]] = []
    end = 0
    for place, word in enumerate(words):
        start = text.find(word, end)
        if start < 0 or text[end:start].strip():
            return place
        end = start + len(word)
        spans.append((start, end))
    return spans


def joined_spans(words: list[str]) -> list[tuple[int, int]]:
    """Start and end of given words in what they make when joined by spaces."""
    spans: list[tuple[int, int]] = []
    start = 0
    for word in words:
        spans.append((start, start + len(word)))
        start += len(word) + 1
    return spans


def _words(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    if text[start:end].isalnum():
        yield start, end
        return
    inner_start = _without_head(text, start, end)
    inner_end = _without_tail(text, inner_start, end)
    yield from _marks(text, start, inner_start)
    if inner_end - 2 > inner_start and _POSSESSIVE.fullmatch(text, inner_end - 2, inner_end):
        yield inner_start, inner_end - 2
        inner_start = inner_end - 2
    if inner_start < inner_end:
        yield inner_start, inner_end
    yield from _marks(text, inner_end, end)


def _without_tail(text: str, start: int, end: int) -> int:
    while end > start and _is_mark(text[end - 1]):
        if text[end - 1] == "." and _ABBREVIATION.fullmatch(text, start, end):
            break
        end -= 1
    return end


def _without_head(text: str, start: int, end: int) -> int:
    while start < end and _is_mark(text[start]) and not _POSSESSIVE.match(text, start, end):
        start += 1
    return start


def _marks(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Punctuation and symbols, equal ones in a row together ("...")."""
    while start < end:
        stop = start + 1
        while stop < end and text[stop] == text[start]:
            stop += 1
        if unicodedata.category(text[start])[0] != "C":
            yield start, stop
        start = stop


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] in "PSC"
