"""Each task is served as it answers offline, over REST and gRPC; a bad row gets its error and harms no other."""

import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

import suffuse
from suffuse.export import export
from suffuse.serving.archive import archive
from suffuse.serving.server import Server, ServerConfig
from suffuse.training.fit import fit

Row = dict[str, Any]
NAMES = ["funny", "clever", "moving"]
WORDS = ["film", "friends", "story", "cast", "tired", "boring"]
CASES: dict[str, list[tuple[Row, str, str]]] = {
    "entities": [
        ({"question": "who?", "context": "a film"}, "missing_field", "text"),
        ({"text": 3}, "invalid_type", "text"),
        ({"text": " "}, "empty_text", "text"),
        ({"tokens": "a film"}, "invalid_type", "tokens"),
        ({"tokens": ["a", 3]}, "invalid_type", "tokens"),
    ],
    "questions": [
        ({"text": "a film"}, "missing_field", "question"),
        ({"question": "who?"}, "missing_field", "context"),
        ({"question": ["who?"], "context": "a film"}, "invalid_type", "question"),
        ({"question": "", "context": "a film"}, "empty_text", "question"),
        ({"question": "who?", "context": "\n"}, "empty_text", "context"),
    ],
    "similarity": [
        ({"text": "a film"}, "missing_field", "text_pair"),
        ({"question": "who?", "context": "a film"}, "missing_field", "text"),
        ({"text": "a film", "text_pair": None}, "invalid_type", "text_pair"),
        ({"text": "a film", "text_pair": ""}, "empty_text", "text_pair"),
    ],
}
BAD_ROWS = [
    pytest.param(name, *case, id=f"{name}-{case[1]}-{case[2]}") for name, cases in CASES.items() for case in cases
]


def sentences(count: int) -> Iterator[list[str]]:
    """Words with a name in each, some of them more than the model reads at once."""
    draw = random.Random(1)
    for number in range(count):
        words = draw.choices(WORDS, k=90 if number % 5 == 0 else 8)
        words[draw.randrange(len(words))] = draw.choice(NAMES)
        yield words


def tagged(words: list[str]) -> Row:
    return {"tokens": words, "tags": ["B-NAME" if word in NAMES else "O" for word in words]}


def asked(words: list[str]) -> Row:
    text = " ".join(words)
    name = next(word for word in words if word in NAMES)
    return {"question": "the cast", "context": text, "answers": {"text": [name], "answer_start": [text.index(name)]}}


def paired(words: list[str]) -> Row:
    return {"text": " ".join(words[:8]), "text_pair": words[0], "score": len(words) % 6}


TASKS: dict[str, tuple[str, Callable[[list[str]], Row]]] = {
    "entities": ("TokenClassification", tagged),
    "questions": ("QuestionAnswering", asked),
    "similarity": ("Similarity", paired),
}


def rows_of(name: str) -> list[Row]:
    """Forty rows to answer, without what the answer should be."""
    unknown = {"tags", "answers", "score"}
    return [{key: row[key] for key in row if key not in unknown} for row in map(TASKS[name][1], sentences(40))]


@pytest.fixture(scope="module")
def bundles(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bundle for each task, a little trained."""
    folder = tmp_path_factory.mktemp("tasks")
    found = {}
    for name, (task, make) in TASKS.items():
        rows = folder / f"{name}.jsonl"
        rows.write_text("".join(json.dumps(make(words)) + "\n" for words in sentences(80)), "utf-8")
        recipe = {
            "run": folder / "runs" / name,
            "model.model": tiny_model,
            "model.optimization.learning_rate": 3e-3,
            "data.task": task,
            "data.train": rows,
            "data.loading.tokens_per_batch": 512,
            "trainer.max_epochs": 2,
            "trainer.accelerator": "cpu",
        }
        run = fit([f"--{key}={value}" for key, value in recipe.items()])
        found[name] = export(run, folder / "bundles" / name).path
    return found


@pytest.fixture(scope="module")
def tasks_server(
    bundles: Mapping[str, Path],
    on_free_ports: Callable[[ServerConfig], ServerConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """A server of all of them, with one worker each."""
    store = tmp_path_factory.mktemp("store")
    for bundle in bundles.values():
        archive(bundle, store)
    config = ServerConfig(store, workers=1, threads=1, state=tmp_path_factory.mktemp("s"))
    with Server(on_free_ports(config)) as running:
        yield running


@pytest.fixture(params=["url", "grpc_url"])
def client(request: pytest.FixtureRequest, tasks_server: Server) -> Iterator[suffuse.Client]:
    with suffuse.Client(getattr(tasks_server, request.param), key_file=tasks_server.key_file) as connected:
        yield connected


def without_scores(answer: Any) -> Any:  # noqa: ANN401 - JSON
    """An answer with every number that is not whole taken out."""
    if isinstance(answer, dict):
        return {key: without_scores(value) for key, value in answer.items() if not isinstance(value, float)}
    return [without_scores(one) for one in answer] if isinstance(answer, list) else answer


def scores(answer: Any) -> list[float]:  # noqa: ANN401 - JSON
    """The numbers of an answer that are not whole, in order."""
    if isinstance(answer, float):
        return [answer]
    parts = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, list) else []
    return [score for part in parts for score in scores(part)]


@pytest.mark.parametrize("name", TASKS)
def test_served_answers_equal_those_offline(name: str, client: suffuse.Client, bundles: Mapping[str, Path]) -> None:
    rows = rows_of(name)
    offline = list(suffuse.load(bundles[name])(rows))

    served = client.predict(name, rows)

    assert without_scores(served) == without_scores(offline)
    assert scores(served) == pytest.approx(scores(offline), abs=1e-4)


@pytest.mark.parametrize(("name", "row", "code", "field"), BAD_ROWS)
def test_bad_row_is_refused_and_its_field_named(
    name: str, row: Row, code: str, field: str, tasks_server: Server
) -> None:
    key = json.loads(tasks_server.key_file.read_text("utf-8"))["inference"]["key"]

    reply = httpx.post(
        f"{tasks_server.url}/predictions/{name}", json=row, headers={"Authorization": f"Bearer {key}"}, timeout=60
    )

    error = reply.json()["error"]
    assert (reply.status_code, error["status"], error["code"]) == (422, 422, code)
    assert f"field {field!r}" in error["message"]


@pytest.mark.parametrize("name", TASKS)
def test_bad_row_leaves_its_neighbours_answered(name: str, client: suffuse.Client, bundles: Mapping[str, Path]) -> None:
    first, last = rows_of(name)[:2]
    bad, code, _ = CASES[name][0]

    answers = client.predict(name, [first, bad, last])

    assert answers[1]["error"]["code"] == code
    assert without_scores([answers[0], answers[2]]) == without_scores(list(suffuse.load(bundles[name])([first, last])))
