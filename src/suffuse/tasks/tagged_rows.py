"""Rows of token classification: their words, and the tags that they give them, checked."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from suffuse.errors import RowError, brief
from suffuse.tasks.base import MOST_SHOWN, Field, Row, check_present, check_text, describe
from suffuse.tasks.tags import Entity, fault, is_iob1, is_tag, marks_ends, spell, tag_label
from suffuse.tasks.words import found_spans, joined_spans, word_spans

TEXT = Field("text", "the text to find entities in, or a list of its words in the field 'tokens'")
TOKENS = Field("tokens", "a list of words")
TAGS = Field("tags", "a list of tags such as B-PER, one for each token, or a list of 'entities' in its place")
ENTITIES = Field("entities", 'a list of objects such as {"start": 0, "end": 4, "label": "PER"}, in characters')


def text_of(row: Row) -> str:
    """The text of a checked row: as it was sent, or its tokens joined by spaces."""
    return str(row[TEXT.name]) if TEXT.name in row else " ".join(row[TOKENS.name])


def word_spans_of(row: Row) -> list[tuple[int, int]]:
    """Start and end of each word of a checked row in its text."""
    if TOKENS.name not in row:
        return word_spans(row[TEXT.name])
    found = found_spans(row[TEXT.name], row[TOKENS.name]) if TEXT.name in row else joined_spans(row[TOKENS.name])
    return found if isinstance(found, list) else []


def check_tokens(row: Row) -> None:
    """Check ``tokens``, and ``text`` where the row has it too.

    Raises:
        RowError: the tokens are not a list of words, not valid Unicode, or do not stand in the text.
    """
    tokens = _list(row, TOKENS)
    for place, token in enumerate(tokens):
        if not isinstance(token, str):
            raise RowError(
                f"field 'tokens' holds {describe(token)} at tokens[{place}]; expected a string", code="invalid_type"
            )
        if not token.strip():
            raise RowError(
                f"field 'tokens' holds {brief(token)} at tokens[{place}]; expected a word", code="empty_text"
            )
    check_text({TOKENS.name: " ".join(tokens)}, TOKENS)
    if TEXT.name in row and isinstance(missed := found_spans(check_text(row, TEXT), tokens), int):
        raise RowError(
            f"field 'tokens' holds {brief(tokens[missed])} at tokens[{missed}], which does not follow in the text; "
            "expected all words of the text in their order",
            code="invalid_tokens",
        )


def tags_of(row: Row, tags: Sequence[str]) -> list[str]:
    """A tag for each word of a checked row, as given or as its entities spell it.

    Args:
        row: with ``tags`` and ``tokens``, or with ``entities``.
        tags: all that were learned; empty while learning.

    Raises:
        RowError: tags are missing, not one a token, not of a scheme, in an illegal order, or not learned; an entity is
            none, is not of whole words, or overlaps another.
    """
    if ENTITIES.name in row and TAGS.name not in row:
        return _tags_of_entities(row, tags)
    given = _list(row, TAGS)
    words = _list(row, TOKENS)
    if len(given) != len(words):
        raise RowError(
            f"field 'tags' has length {len(given)} and 'tokens' {len(words)}; expected a tag for each token",
            code="wrong_length",
        )
    for place, tag in enumerate(given):
        _check_tag(tag, place, tags)
    _check_order(given, words, ends_marked=marks_ends(tags or given))
    return given


def some(names: Sequence[str]) -> str:
    """Names for error messages, not too many."""
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return ", ".join(names[:MOST_SHOWN]) + more


def _check_tag(tag: object, place: int, tags: Sequence[str]) -> None:
    if not isinstance(tag, str) or not is_tag(tag):
        raise RowError(
            f"field 'tags' holds {brief(tag) if isinstance(tag, str) else describe(tag)} at tags[{place}]; "
            "expected O, or B- or I- and a label, such as B-PER (BIO), or besides E- and S- for an entity's last word "
            "and an only one (BIOES)",
            code="invalid_tag",
        )
    if tags and tag not in tags:
        raise RowError(
            f"field 'tags' holds {brief(tag)} at tags[{place}]; expected some of {some(tags)} (learned in training)",
            code="unknown_label",
        )


def _check_order(tags: Sequence[str], words: Sequence[object], *, ends_marked: bool) -> None:
    place = fault(tags, ends_marked=ends_marked)
    if place is None or (not ends_marked and is_iob1(tags)):
        return
    before = repr(tags[place - 1]) if place else "nothing"
    if place == len(tags):
        label = tag_label(tags[-1])
        raise RowError(
            f"field 'tags' ends with {before}; expected E-{label}, or S-{label} for an only word (BIOES)",
            code="illegal_tags",
        )
    got = f"field 'tags' holds {tags[place]!r} at tags[{place}] ({brief(str(words[place]))}) after {before}"
    if ends_marked:
        expected = "B- or S- where an entity begins, E- or S- where one ends (BIOES)"
    else:
        expected = f"B-{tag_label(tags[place])} where an entity begins (BIO), or IOB1 in the whole row"
    raise RowError(f"{got}; expected {expected}", code="illegal_tags")


def _tags_of_entities(row: Row, tags: Sequence[str]) -> list[str]:
    text, spans = text_of(row), word_spans_of(row)
    starts, ends = {start for start, _ in spans}, {end for _, end in spans}
    labels = sorted({tag_label(tag) for tag in tags} - {""})
    found: list[Entity] = []
    for place, given in enumerate(_list(row, ENTITIES)):
        entity = _entity(given, place, text)
        shown = brief(text[entity.first : entity.end])
        if entity.first not in starts or entity.end not in ends:
            raise RowError(
                f"field 'entities' holds {shown} at entities[{place}], which does not begin and end with a word; "
                "expected whole words: mend 'start' and 'end', or give the words in the field 'tokens'",
                code="invalid_entity",
            )
        if labels and entity.label not in labels:
            raise RowError(
                f"field 'entities' holds the label {brief(entity.label)} at entities[{place}] ({shown}); "
                f"expected one of {some(labels)} (learned in training)",
                code="unknown_label",
            )
        found.append(entity)
    found.sort()
    for before, after in pairwise(found):
        if after.first < before.end:
            raise RowError(
                f"field 'entities' holds {brief(text[before.first : before.end])} and "
                f"{brief(text[after.first : after.end])}, which overlap; expected each word in one entity at most",
                code="invalid_entity",
            )
    return spell(found, [start for start, _ in spans], ends_marked=marks_ends(tags))


def _entity(given: object, place: int, text: str) -> Entity:
    fields = given if isinstance(given, Mapping) else {}
    start, end, label = (fields.get(name) for name in ("start", "end", "label"))
    if type(start) is not int or type(end) is not int or not isinstance(label, str) or not is_tag(f"B-{label}"):
        raise RowError(
            f"field 'entities' holds {describe(given)} at entities[{place}]; "
            'expected an object such as {"start": 0, "end": 4, "label": "PER"}',
            code="invalid_entity",
        )
    if not 0 <= start < end <= len(text):
        raise RowError(
            f"field 'entities' holds start {start} and end {end} at entities[{place}]; "
            f"expected 0 <= start < end <= {len(text)}, the characters of the text",
            code="invalid_entity",
        )
    return Entity(start, end, label)


def _list(row: Row, field: Field) -> list[Any]:
    value = check_present(row, field)
    if not isinstance(value, list | tuple):
        raise RowError(f"field {field.name!r} is {describe(value)}; expected {field.meaning}", code="invalid_type")
    return list(value)
