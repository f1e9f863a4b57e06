"""`suffuse serve --instances N`: a stack that runs until it is interrupted, and what its user needs to know of it."""

import logging
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from suffuse.balancing.stack import Stack, StackConfig
from suffuse.errors import ServerError
from suffuse.serving.run import log_to_stderr
from suffuse.unix_signals import on_signals

_LOG = logging.getLogger(__name__)

Beside = Callable[[Stack], AbstractContextManager[object]]
"""What runs beside a stack that is ready, and ends before it does."""


def serve_stack(config: StackConfig, beside: Beside = nullcontext) -> None:
    """Serve until SIGINT or SIGTERM comes; SIGHUP has HAProxy read its certificate anew. For the main thread.

    Logs go to stderr. When all instances are ready, addresses, models and an example go to stdout.

    Args:
        config: what to serve and where.
        beside: what runs as long as the stack is ready, such as an autoscaler.

    Raises:
        ServerError: an instance or HAProxy does not start.
        InputError: the configuration cannot be balanced, or an archive is missing or unreadable.
    """
    log_to_stderr()
    stack = Stack(config)
    with on_signals(stack.request_stop), stack:
        if not stack.ready:
            return
        with beside(stack), _reloading(stack):
            sys.stdout.write(announcement(stack) + "\n")
            sys.stdout.flush()  # whoever waits for these lines may read them through a pipe
            stack.wait()


def announcement(stack: Stack) -> str:
    """The addresses, the models, where the token is (never the token), and a request to try."""
    record = stack.record
    lines = {
        "REST": record.url,
        "gRPC": record.grpc_url,
        "metrics": record.metrics_url,
        "models": ", ".join(f"{archive.model} {archive.version}" for archive in stack.archives),
        "instances": ", ".join(f"{instance.name} {instance.rest_url}" for instance in record.instances),
        "token": str(record.token_file or "none; anybody who reaches the port may use it"),
        "state": str(stack.state),
    }
    listing = "\n".join(f"  {name:<12}{value}" for name, value in lines.items())
    return f"ready; Ctrl-C stops it\n{listing}\ntry\n  {_example(stack)}"


def _example(stack: Stack) -> str:
    """A curl line for the first model; it reads the token when it runs."""
    record = stack.record
    words = ["curl", f"{record.url}/predictions/{record.models[0]}"]
    if record.certificate is not None:
        words += ["--cacert", str(record.certificate)]
    line = shlex.join(words)
    if record.token_file is not None:
        line += f' -H "Authorization: Bearer $(cat {shlex.quote(str(record.token_file))})"'
    return f"""{line} -H 'Content-Type: application/json' -d '{{"text": "a warm, funny film"}}'"""


@contextmanager
def _reloading(stack: Stack) -> Iterator[None]:
    """Have SIGHUP reload the balancer."""

    def reload() -> None:
        try:
            stack.reload()
        except ServerError as error:
            _LOG.warning("not reloaded: %s", error)
        else:
            _LOG.info("the balancer has read its files anew")

    with on_signals(reload, (signal.SIGHUP,)):
        yield
