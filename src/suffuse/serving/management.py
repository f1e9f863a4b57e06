"""TorchServe's management API with types: which models there are, how workers and queues stand, and changing both."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx

from suffuse.errors import AnswerError, ConnectError, DeadlineError, brief
from suffuse.serving.keys import Key
from suffuse.serving.replies import http_refusal

_POLL_S = 0.25


@dataclass(frozen=True)
class Worker:
    """One Python process of a model, as TorchServe sees it; `pid` is 0 until it has started."""

    id: str
    pid: int
    status: str

    @property
    def ready(self) -> bool:
        """Whether it has loaded its model and takes requests."""
        return self.status == "READY"


@dataclass(frozen=True)
class ModelState:
    """How one version of a model stands.

    Args:
        name: the model.
        version: its version.
        min_workers: workers that TorchServe keeps running.
        max_workers: its upper bound; TorchServe itself never goes there.
        batch_size: rows a batch, at most.
        max_batch_delay_ms: how long a batch waits for more rows.
        workers: its workers, in every state.
        pending: requests in the queue.
        remaining: requests that the queue still takes.
    """

    name: str
    version: str
    min_workers: int
    max_workers: int
    batch_size: int
    max_batch_delay_ms: int
    workers: tuple[Worker, ...]
    pending: int
    remaining: int

    @property
    def ready_workers(self) -> int:
        """How many workers take requests now."""
        return sum(worker.ready for worker in self.workers)


class Management:
    """A connection to a management port; a context manager.

    Every method raises ConnectError, DeadlineError, AuthorizationError, UnknownModelError, or AnswerError for what
    TorchServe refuses otherwise.

    Args:
        url: such as ``http://127.0.0.1:8081``.
        token: the management key.
        key_file: the server's key_file.json, instead of `token`; it is read again when a key is refused.
        timeout_s: time limit of one request, in seconds.
        transport: stands in for the network in tests.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        key_file: Path | str | None = None,
        timeout_s: float = 10.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._url = url
        self._key = Key("management", token=token, key_file=key_file)
        self._timeout_s = timeout_s
        # A management port is never behind a web proxy, whatever the environment says of proxies.
        self._http = httpx.Client(base_url=url, timeout=timeout_s, transport=transport, trust_env=False)

    def models(self) -> tuple[str, ...]:
        """Names of all registered models."""
        names: list[str] = []
        start: str | None = "0"
        while start is not None:
            page = self._ask("GET", "/models", {"limit": "100", "next_page_token": start})
            try:
                names.extend(str(model["modelName"]) for model in page.get("models", ()))
                start = page.get("nextPageToken")
            except (KeyError, TypeError, AttributeError) as error:
                raise _no_list(f"{self._url}/models", page) from error
        return tuple(names)

    def describe(self, model: str, version: str | None = None) -> ModelState:
        """How a model stands; its default version unless another is named."""
        return self._states(_path(model, version))[0]

    def versions(self, model: str) -> tuple[ModelState, ...]:
        """How every registered version of a model stands."""
        return self._states(_path(model, "all"))

    def scale(self, model: str, workers: int, version: str | None = None) -> None:
        """Ask for a number of workers and return at once; `wait_ready` waits for them.

        TorchServe keeps to min_worker, so both bounds are set to the same number. With a full queue it answers 500 and
        may cut requests: scale down before a queue is full, or not at all.
        """
        # synchronous=true would hold one of the few threads that also answer inference requests.
        bounds = {"min_worker": str(workers), "max_worker": str(workers), "synchronous": "false"}
        self._ask("PUT", _path(model, version), bounds)

    def register(self, archive: str, *, initial_workers: int | None = None) -> None:
        """Load an archive from the model store and start its workers, without waiting for them: see `wait_ready`.

        Args:
            archive: a file name in the server's model store. Other places need an entry in allowed_urls.
            initial_workers: how many; None is what its model-config.yaml asks for, which also wins over a number here:
                `scale` afterwards sets it for certain.
        """
        query = {"url": archive, "synchronous": "false"}
        if initial_workers is not None:
            query["initial_workers"] = str(initial_workers)
        self._ask("POST", "/models", query)

    def set_default(self, model: str, version: str) -> None:
        """Have requests that name no version answered by this one."""
        self._ask("PUT", f"{_path(model, version)}/set-default")

    def unregister(self, model: str, version: str | None = None) -> None:
        """Remove a model; a named version must not be the default one.

        Wait for `pending` == 0 first: requests still in its queue would hang until their own time limit.
        """
        self._ask("DELETE", _path(model, version))

    def wait_ready(self, model: str, timeout_s: float, *, workers: int = 1, version: str | None = None) -> ModelState:
        """Return when at least `workers` workers take requests.

        Args:
            model: the model.
            timeout_s: time limit, in seconds.
            workers: how many to wait for.
            version: its default version unless another is named.

        Raises:
            DeadlineError: they do not within `timeout_s`; the message names the workers' states.
        """
        deadline = time.monotonic() + timeout_s
        while (state := self.describe(model, version)).ready_workers < workers:
            if time.monotonic() > deadline:
                found = ", ".join(worker.status for worker in state.workers) or "no worker"
                raise DeadlineError(
                    f"{self._url}: model {model!r} has {state.ready_workers} of {workers} ready workers after "
                    f"{timeout_s:g} s ({found}); TorchServe's workers.log says why"
                )
            time.sleep(_POLL_S)
        return state

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _states(self, path: str) -> tuple[ModelState, ...]:
        content = self._ask("GET", path)
        try:
            states = tuple(_model_state(part) for part in content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _no_description(f"{self._url}{path}", content) from error
        if not states:
            raise _no_description(f"{self._url}{path}", content)
        return states

    def _ask(self, method: str, path: str, query: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401 - parsed JSON
        return self._key.try_with(lambda headers: self._ask_once(method, path, query, headers))

    def _ask_once(self, method: str, path: str, query: Mapping[str, str] | None, headers: Mapping[str, str]) -> Any:  # noqa: ANN401 - parsed JSON
        place = f"{self._url}{path}"
        try:
            reply = self._http.request(method, path, params=query, headers=headers)
        except httpx.TimeoutException as error:
            raise DeadlineError(f"{place}: no answer within {self._timeout_s:g} s") from error
        except httpx.RequestError as error:
            raise ConnectError(f"{place}: no connection ({error}); is `suffuse serve` running there?") from error
        if not reply.is_success:
            raise http_refusal(reply.status_code, reply.content, place)
        try:
            return reply.json()
        except ValueError as error:
            raise AnswerError(
                f"{place}: got a reply that is not JSON; is this the management port?", code="not_json", status=200
            ) from error


def _path(model: str, version: str | None) -> str:
    path = f"/models/{quote(model, safe='')}"
    return path if version is None else f"{path}/{quote(version, safe='')}"


def _no_list(place: str, content: object) -> AnswerError:
    return AnswerError(
        f"{place}: got {brief(json.dumps(content))}; expected a list of models: is this TorchServe's management port?",
        code="not_models",
        status=200,
    )


def _no_description(place: str, content: object) -> AnswerError:
    return AnswerError(
        f"{place}: got {brief(json.dumps(content))}; expected the description of a model: is this TorchServe's "
        "management port?",
        code="not_a_model",
        status=200,
    )


def _model_state(content: Mapping[str, Any]) -> ModelState:
    queue = content.get("jobQueueStatus", {})
    return ModelState(
        name=str(content["modelName"]),
        version=str(content["modelVersion"]),
        min_workers=int(content["minWorkers"]),
        max_workers=int(content["maxWorkers"]),
        batch_size=int(content["batchSize"]),
        max_batch_delay_ms=int(content["maxBatchDelay"]),
        workers=tuple(Worker(str(w["id"]), max(0, int(w.get("pid", 0))), str(w["status"])) for w in content["workers"]),
        pending=int(queue.get("pendingRequests", 0)),
        remaining=int(queue.get("remainingCapacity", 0)),
    )
