"""Rows of tagged words: what is read, and what is refused, each with the whole of what is said."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffuse.errors import DataError, RowError
from suffuse.tasks import Row, TokenClassification

BIO = TokenClassification(("O", "B-LOC", "B-PER", "I-LOC", "I-PER"))
BIOES = TokenClassification(("O", "B-LOC", "E-LOC", "I-LOC", "S-LOC"))
UNLEARNED = TokenClassification()


def refusal(call: Callable[[Any], object], row: object) -> tuple[str, str]:
    with pytest.raises(RowError) as caught:
        call(row)
    return caught.value.code, str(caught.value)


def test_a_row_is_a_text_or_its_words_or_both() -> None:
    both = {"text": "Paris, France", "tokens": ["Paris", ",", "France"]}

    assert BIO.check("Paris") == {"text": "Paris"}
    assert BIO.check({"tokens": ["Paris", "."]}) == {"tokens": ["Paris", "."]}
    assert BIO.check(both) is both


def test_a_target_is_in_characters_of_the_joined_tokens() -> None:
    row = {"tokens": ["In", "New", "York", "Ann", "Smith"], "tags": ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]}

    assert BIO.target(row) == ((3, 11, "LOC"), (12, 21, "PER"))


def test_a_target_is_in_characters_of_the_text_where_there_is_one() -> None:
    row = {"text": "In New  York.", "tokens": ["In", "New", "York", "."], "tags": ["O", "B-LOC", "I-LOC", "O"]}

    assert BIO.target(row) == ((3, 12, "LOC"),)


def test_a_target_may_be_given_as_entities() -> None:
    spans = [{"start": 13, "end": 16, "label": "PER"}, {"start": 3, "end": 11, "label": "LOC"}]

    assert BIO.target({"text": "In New York (Ann).", "entities": spans}) == ((3, 11, "LOC"), (13, 16, "PER"))


def test_iob1_is_read_as_it_is_meant() -> None:
    row = {"tokens": ["Ann", "Smith", "Bob", "Bonn"], "tags": ["I-PER", "I-PER", "B-PER", "I-LOC"]}

    assert BIO.target(row) == ((0, 9, "PER"), (10, 13, "PER"), (14, 18, "LOC"))


def test_all_tags_of_the_scheme_are_learned() -> None:
    rows: list[Row] = [{"tokens": ["Ann", "in"], "tags": ["I-PER", "O"]}, {"tokens": ["Bonn"], "tags": ["B-LOC"]}]

    assert UNLEARNED.learn(rows) == BIO
    assert UNLEARNED.learn([{"tokens": ["Bonn"], "tags": ["S-LOC"]}]) == BIOES
    assert UNLEARNED.learn([{"text": "Bonn", "entities": [{"start": 0, "end": 4, "label": "LOC"}]}]).tags == (
        "O",
        "B-LOC",
        "I-LOC",
    )


def test_tags_that_were_given_stay() -> None:
    assert BIO.learn([]) is BIO


@pytest.mark.parametrize(
    ("task", "rows", "message"),
    [
        (
            UNLEARNED,
            [{"tokens": ["a"], "tags": ["O"]}],
            "the training rows have no entities in the field 'tags' or 'entities'; expected some",
        ),
        (
            TokenClassification(("LOC", "O")),
            [],
            "the tags are LOC, O; expected O, and others such as B-PER, I-PER",
        ),
        (
            TokenClassification(("B-LOC", "I-LOC")),
            [],
            "the tags are B-LOC, I-LOC; expected O, and others such as B-PER, I-PER",
        ),
    ],
)
def test_tags_that_are_no_scheme_are_refused(task: TokenClassification, rows: list[Row], message: str) -> None:
    with pytest.raises(DataError) as caught:
        task.learn(rows)

    assert str(caught.value) == message


MEANT = "the text to find entities in, or a list of its words in the field 'tokens'"


@pytest.mark.parametrize(
    ("row", "code", "message"),
    [
        (
            {"question": "Where?", "context": "In Bonn."},
            "missing_field",
            f"field 'text' is missing: got 'question', 'context'; expected {MEANT}; did you mean 'text' by 'context'?",
        ),
        ({}, "missing_field", f"field 'text' is missing: the row has no fields; expected {MEANT}"),
        (3, "invalid_type", "the row is 3; expected an object with the field 'text'"),
        ({"text": 3}, "invalid_type", f"field 'text' is 3; expected a string: {MEANT}"),
        ("  ", "empty_text", f"field 'text' is empty; expected {MEANT}"),
        ({"tokens": "In Bonn"}, "invalid_type", "field 'tokens' is a string; expected a list of words"),
        ({"tokens": []}, "empty_text", "field 'tokens' is empty; expected a list of words"),
        ({"tokens": ["In", 3]}, "invalid_type", "field 'tokens' holds 3 at tokens[1]; expected a string"),
        ({"tokens": ["In", " "]}, "empty_text", "field 'tokens' holds ' ' at tokens[1]; expected a word"),
        (
            {"tokens": ["In", "\ud83d"]},
            "invalid_text",
            "field 'tokens' holds a lone surrogate (U+D83D) at position 3; expected valid Unicode",
        ),
        (
            {"text": "In Bonn.", "tokens": ["In", "Rome"]},
            "invalid_tokens",
            (
                "field 'tokens' holds 'Rome' at tokens[1], which does not follow in the text; "
                "expected all words of the text in their order"
            ),
        ),
    ],
)
def test_a_row_that_cannot_be_answered_is_refused(row: object, code: str, message: str) -> None:
    assert refusal(BIO.check, row) == (code, message)


PREFIXES = (
    "expected O, or B- or I- and a label, such as B-PER (BIO), or besides E- and S- for an entity's last word and an "
    "only one (BIOES)"
)
LEARNED = "expected some of O, B-LOC, B-PER, I-LOC, I-PER (learned in training)"


@pytest.mark.parametrize(
    ("task", "row", "code", "message"),
    [
        (
            BIO,
            {"tokens": ["Bonn"]},
            "missing_field",
            (
                "field 'tags' is missing: got 'tokens'; expected a list of tags such as B-PER, one for each token, "
                "or a list of 'entities' in its place"
            ),
        ),
        (
            BIO,
            {"text": "Bonn", "tags": ["B-LOC"]},
            "missing_field",
            "field 'tokens' is missing: got 'text', 'tags'; expected a list of words",
        ),
        (
            BIO,
            {"tokens": ["Bonn"], "tags": "B-LOC"},
            "invalid_type",
            (
                "field 'tags' is a string; expected a list of tags such as B-PER, one for each token, "
                "or a list of 'entities' in its place"
            ),
        ),
        (
            BIO,
            {"tokens": ["Bonn", "."], "tags": ["B-LOC"]},
            "wrong_length",
            "field 'tags' has length 1 and 'tokens' 2; expected a tag for each token",
        ),
        (
            UNLEARNED,
            {"tokens": ["Bonn"], "tags": ["LOC"]},
            "invalid_tag",
            f"field 'tags' holds 'LOC' at tags[0]; {PREFIXES}",
        ),
        (UNLEARNED, {"tokens": ["Bonn"], "tags": [5]}, "invalid_tag", f"field 'tags' holds 5 at tags[0]; {PREFIXES}"),
        (
            BIO,
            {"tokens": ["Bonn"], "tags": ["B-ORG"]},
            "unknown_label",
            f"field 'tags' holds 'B-ORG' at tags[0]; {LEARNED}",
        ),
        (
            BIO,
            {"tokens": ["Bonn"], "tags": ["S-LOC"]},
            "unknown_label",
            f"field 'tags' holds 'S-LOC' at tags[0]; {LEARNED}",
        ),
        (
            BIO,
            {"tokens": ["Ann", "Bonn"], "tags": ["B-PER", "I-LOC"]},
            "illegal_tags",
            (
                "field 'tags' holds 'I-LOC' at tags[1] ('Bonn') after 'B-PER'; "
                "expected B-LOC where an entity begins (BIO), or IOB1 in the whole row"
            ),
        ),
        (
            BIOES,
            {"tokens": ["In", "Bonn"], "tags": ["O", "I-LOC"]},
            "illegal_tags",
            (
                "field 'tags' holds 'I-LOC' at tags[1] ('Bonn') after 'O'; "
                "expected B- or S- where an entity begins, E- or S- where one ends (BIOES)"
            ),
        ),
        (
            BIOES,
            {"tokens": ["Bonn"], "tags": ["E-LOC"]},
            "illegal_tags",
            (
                "field 'tags' holds 'E-LOC' at tags[0] ('Bonn') after nothing; "
                "expected B- or S- where an entity begins, E- or S- where one ends (BIOES)"
            ),
        ),
        (
            BIOES,
            {"tokens": ["Bonn"], "tags": ["B-LOC"]},
            "illegal_tags",
            "field 'tags' ends with 'B-LOC'; expected E-LOC, or S-LOC for an only word (BIOES)",
        ),
    ],
)
def test_tags_that_cannot_be_learned_from_are_refused(
    task: TokenClassification, row: Row, code: str, message: str
) -> None:
    assert refusal(task.target, row) == (code, message)


SHAPE = 'expected an object such as {"start": 0, "end": 4, "label": "PER"}'


@pytest.mark.parametrize(
    ("entities", "code", "message"),
    [
        (
            {"start": 0},
            "invalid_type",
            (
                "field 'entities' is an object; expected a list of objects such as "
                '{"start": 0, "end": 4, "label": "PER"}, in characters'
            ),
        ),
        ([3], "invalid_entity", f"field 'entities' holds 3 at entities[0]; {SHAPE}"),
        ([{"start": 3, "end": 7}], "invalid_entity", f"field 'entities' holds an object at entities[0]; {SHAPE}"),
        (
            [{"start": True, "end": 7, "label": "LOC"}],
            "invalid_entity",
            f"field 'entities' holds an object at entities[0]; {SHAPE}",
        ),
        (
            [{"start": 3, "end": 70, "label": "LOC"}],
            "invalid_entity",
            (
                "field 'entities' holds start 3 and end 70 at entities[0]; "
                "expected 0 <= start < end <= 12, the characters of the text"
            ),
        ),
        (
            [{"start": 3, "end": 6, "label": "LOC"}],
            "invalid_entity",
            (
                "field 'entities' holds 'New' at entities[0], which does not begin and end with a word; "
                "expected whole words: mend 'start' and 'end', or give the words in the field 'tokens'"
            ),
        ),
        (
            [{"start": 3, "end": 11, "label": "ORG"}],
            "unknown_label",
            (
                "field 'entities' holds the label 'ORG' at entities[0] ('New-York'); "
                "expected one of LOC, PER (learned in training)"
            ),
        ),
        (
            [{"start": 3, "end": 11, "label": "LOC"}, {"start": 0, "end": 11, "label": "PER"}],
            "invalid_entity",
            (
                "field 'entities' holds 'In New-York' and 'New-York', which overlap; "
                "expected each word in one entity at most"
            ),
        ),
    ],
)
def test_entities_that_cannot_be_learned_from_are_refused(entities: object, code: str, message: str) -> None:
    assert refusal(BIO.target, {"text": "In New-York.", "entities": entities}) == (code, message)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "tokens", "tags", "entities", "start", "end", "label"]), inner)
    ),
)


@given(JSON)
@settings(deadline=None, max_examples=200)
def test_whatever_is_sent_has_a_target_or_a_row_error(row: object) -> None:
    with contextlib.suppress(RowError):
        BIO.target(BIO.check(row))
