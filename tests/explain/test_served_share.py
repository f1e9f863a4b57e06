"""Explanations take their share of a worker's time and no more, and one worker explains at a time."""

import json
from pathlib import Path

import pytest

from suffuse.bundle import MANIFEST
from suffuse.explain.served import ExplanationLimits, ServedExplanations
from suffuse.explain.turn import Turn
from suffuse.runtime import Predictor, Service, load

ASKED = {"row": "a warm and funny film", "method": "gradient"}


class Clock:
    """Goes on by a step each time it is read."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.now_s, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


@pytest.fixture(scope="module")
def predictor(explainable_bundle: Path) -> Predictor:
    return load(explainable_bundle, threads=1)


def test_who_comes_when_the_share_is_used_up_is_told_when_to_come_again(predictor: Predictor) -> None:
    clock = Clock(step_s=0.2)  # what one takes; 0.1 s is saved up
    served = ServedExplanations(predictor, ExplanationLimits(share=0.1), clock)

    first = served.reply(ASKED)
    busy = served.reply(ASKED)

    error = json.loads(busy.body)["error"]
    assert (first.status, busy.status, error["code"]) == (200, 429, "explanations_busy")
    assert error["message"] == (
        "explanations have had their 10% of the worker's time; expected a pause: ask again in 0.8 s"
    )
    assert error["retry_after_s"] == pytest.approx(0.8)
    assert busy.headers == {"Retry-After": "1"}
    clock.now_s += error["retry_after_s"]
    assert served.reply(ASKED).status == 200


def test_one_worker_explains_at_a_time(predictor: Predictor) -> None:
    served = ServedExplanations(predictor, ExplanationLimits(), Clock())
    with Turn(predictor.bundle.path / MANIFEST).taken():
        reply = served.reply(ASKED)

    error = json.loads(reply.body)["error"]
    assert (reply.status, error["code"], error["retry_after_s"]) == (429, "explanations_busy", 0.2)
    assert error["message"] == "another worker is explaining; expected a pause: ask again in 0.2 s"
    assert served.reply(ASKED).status == 200


def test_predictions_of_the_same_batch_do_not_wait_for_an_explanation(predictor: Predictor) -> None:
    served = ServedExplanations(predictor, ExplanationLimits(), Clock())

    service = Service(predictor, served.reply)
    prediction, put_off = service.replies([b'"a film"', ASKED], {1: None})

    error = json.loads(put_off.body)["error"]
    assert prediction.status == 200
    assert (put_off.status, error["code"], error["retry_after_s"]) == (429, "explanations_busy", 0.2)
    assert error["message"] == "predictions came at the same time; expected a pause: ask again in 0.2 s"
    assert service.replies([ASKED], {0: None})[0].status == 200


def test_a_request_that_cannot_be_read_costs_nothing(predictor: Predictor) -> None:
    served = ServedExplanations(predictor, ExplanationLimits(share=0.01), Clock(step_s=1.0))
    served.reply(ASKED)

    assert served.reply(b"{").status == 400
    assert served.reply(ASKED).status == 429
