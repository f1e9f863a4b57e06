"""Tasks: what a row holds, what a network must put out for it, and what the answer looks like.

A task is the same object in training and in service. It knows no torch and no ONNX Runtime: it is handed a function
``run(graph, arrays) -> arrays`` that computes.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from suffuse.errors import BundleError
from suffuse.tasks.base import Answer, Arrays, Field, Head, Level, Loss, Row, Run, Task, Window
from suffuse.tasks.classification import Classification
from suffuse.tasks.explained import Target
from suffuse.tasks.question_answering import QuestionAnswering
from suffuse.tasks.similarity import Similarity
from suffuse.tasks.token_classification import TokenClassification
from suffuse.tasks.tokens import Tokens

TASKS: dict[str, type[Task]] = {
    task.name: task for task in (Classification, TokenClassification, QuestionAnswering, Similarity)
}

__all__ = [
    "TASKS",
    "Answer",
    "Arrays",
    "Classification",
    "Field",
    "Head",
    "Level",
    "Loss",
    "QuestionAnswering",
    "Row",
    "Run",
    "Similarity",
    "Target",
    "Task",
    "TokenClassification",
    "Tokens",
    "Window",
    "task_from_dict",
    "task_to_dict",
]


def task_to_dict(task: Task) -> dict[str, Any]:
    """A task as JSON: its name and its settings."""
    return {"name": task.name, **asdict(task)}


def task_from_dict(description: Mapping[str, Any]) -> Task:
    """The task that `task_to_dict` described.

    Raises:
        BundleError: this version has no task of that name, or other settings for it.
    """
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in description.items()}
    name = settings.pop("name", None)
    if name not in TASKS:
        raise BundleError(f"task {name!r} is not known to this version; expected one of {', '.join(TASKS)}")
    known = {field.name for field in fields(TASKS[name])}
    if unknown := sorted(set(settings) - known):
        raise BundleError(f"task {name!r} has no setting {', '.join(unknown)}; expected {', '.join(sorted(known))}")
    return TASKS[name](**settings)
