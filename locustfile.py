"""For those who use locust directly, with its web page: `locust -f locustfile.py --host http://127.0.0.1:8080`.

`suffuse load-test` does more: loads that slow answers do not thin, and a verdict. This file has the same requests, the
same checks, and settings from the environment: SUFFUSE_DATA, a file of rows; SUFFUSE_MODEL, its name; SUFFUSE_GRPC_URL
for users over gRPC, of which there are as many; SUFFUSE_KEY_FILE or SUFFUSE_TOKEN; SUFFUSE_CA_FILE; SUFFUSE_EXPECTED,
right answers to the rows.
"""

import os
import sys
from dataclasses import replace
from functools import partial
from typing import Any

from locust import events
from locust.env import Environment

from suffuse.errors import SuffuseError
from suffuse.load_test.plan import LoadConfig, Order, Target, Users, make_order
from suffuse.load_test.senders import GrpcSender, RestSender, prepare_grpc
from suffuse.load_test.users import Asker, ModelUser, fire

HOST = "http://127.0.0.1:8080"
MOST_USERS = 1000


def order_of_environment() -> Order:
    """Rows and where they go, as the environment says."""
    read = os.environ.get
    if not (data := read("SUFFUSE_DATA")):
        sys.exit("locustfile.py: SUFFUSE_DATA is not set; expected a file of rows to send")
    try:
        target = Target(
            HOST,
            read("SUFFUSE_MODEL", "sentiment"),
            grpc_url=read("SUFFUSE_GRPC_URL", ""),
            token=read("SUFFUSE_TOKEN"),
            key_file=read("SUFFUSE_KEY_FILE"),
            ca_file=read("SUFFUSE_CA_FILE"),
        )
        return make_order(LoadConfig(target, Users(1, 1.0), data, expected=read("SUFFUSE_EXPECTED", "")))
    except SuffuseError as error:
        sys.exit(f"locustfile.py: {error}")


ORDER = order_of_environment()
prepare_grpc(MOST_USERS)


@events.init.add_listener  # type: ignore[untyped-decorator]
def share_asker(environment: Environment, **_: Any) -> None:  # noqa: ANN401
    """All users draw from the same rows, and compare with the same answers."""
    ModelUser.asker = Asker(ORDER, partial(fire, environment, ORDER.target.model))


class RestUser(ModelUser):
    """Over REST, at locust's --host."""

    host = HOST

    def on_start(self) -> None:
        """Make a connection of its own."""
        url = str(self.host).rstrip("/")
        self.sender = RestSender(url, replace(ORDER.target, url=url), 1)


class GrpcUser(ModelUser):
    """Over gRPC, at SUFFUSE_GRPC_URL; there are none where that is not set."""

    abstract = not ORDER.target.grpc_url

    def on_start(self) -> None:
        """Make a connection of its own."""
        self.sender = GrpcSender(ORDER.target.grpc_url, ORDER.target, 1)
