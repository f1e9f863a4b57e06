"""HAProxy must be told exactly what keeps requests: who is asked, who is up, what is repeated, what is refused."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from suffuse.balancing.config import BalancerConfig, Instance, Limits, render
from suffuse.errors import InputError

A = Instance("a", "127.0.0.1", 1, 2, 3)
B = Instance("b", "ts-b", 4, 5, 6)


def config(**changes: Any) -> BalancerConfig:  # noqa: ANN401 - fields of BalancerConfig
    own: dict[str, Any] = {"models": ("m",), "instances": (A,), "run": Path("/run/s")}
    return BalancerConfig(**{**own, **changes})


def section(text: str, head: str) -> list[str]:
    """The lines of one section, without blanks around them and comments behind them."""
    parts = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)
    found = next(part for part in parts if part.startswith(head))
    return [line.split("  #")[0].strip() for line in found.splitlines()[1:] if line.strip()]


def test_each_model_has_a_check_and_a_pair_of_backends_over_all_instances() -> None:
    text = render(config(models=("m", "n"), instances=(A, B)))

    for model in ("m", "n"):
        rest, grpc = section(text, f"backend rest_{model} "), section(text, f"backend grpc_{model} ")
        assert f"http-check send meth GET uri /models/{model} hdr Host localhost" in rest
        assert rest[-2:] == ["server a unix@/run/s/rest_a.sock", "server b unix@/run/s/rest_b.sock"]
        assert grpc[-2:] == [
            f"server a unix@/run/s/grpc_a.sock track rest_{model}/a",
            f"server b unix@/run/s/grpc_b.sock track rest_{model}/b",
        ]


def test_instance_is_reached_by_an_inner_hop_that_makes_a_dead_worker_repeatable() -> None:
    text = render(config())

    assert section(text, "listen in_rest_a ") == [
        "bind unix@/run/s/rest_a.sock mode 600",
        "http-response set-status 503 if { status 507 }",
        "use-server management if { path_beg /models/ }",
        "server management 127.0.0.1:3 weight 0",
        "server inference 127.0.0.1:1",
    ]
    assert section(text, "listen in_grpc_a ") == [
        "bind unix@/run/s/grpc_a.sock mode 600 proto h2",
        'http-response set-status 503 if { res.hdr(grpc-message) -m beg "Worker died" } || { res.hdr(grpc-status) 14 }',
        "server inference 127.0.0.1:2 proto h2",
    ]


def test_host_that_has_a_name_is_looked_up_again_and_need_not_be_known_at_the_start() -> None:
    text = render(config(instances=(A, B)))

    line = "server inference ts-b:4 resolvers names resolve-opts allow-dup-ip init-addr libc,none"
    assert line in section(text, "listen in_rest_b ")
    assert "parse-resolv-conf" in section(text, "resolvers names")
    assert "resolvers" not in render(config())


def test_failed_request_is_repeated_at_another_instance() -> None:
    outer = section(render(config()), "defaults outer ")

    assert "retry-on conn-failure empty-response response-timeout 500 502 503" in outer
    assert {"retries 3", "option redispatch 1", "option http-buffer-request"} <= set(outer)
    assert "retries 0" in section(render(config()), "defaults inner")


def test_limits_stand_where_they_are_decided() -> None:
    limits = Limits(in_flight=4, queue=20, queue_s=0.5, body_bytes=1000, answer_s=30.0, client_rate=2.5, connections=9)

    text = render(config(limits=limits))

    rest, api = "\n".join(section(text, "backend rest_m ")), "\n".join(section(text, "frontend api "))
    assert "maxconn 9" in section(text, "global")
    assert " maxconn 4 " in rest
    assert "hdr Retry-After 1 if { queue(rest_m) ge 20 }" in rest
    assert 'hdr grpc-message "overloaded" hdr Retry-After 1 if { queue(grpc_m) ge 20 }' in "\n".join(
        section(text, "backend grpc_m ")
    )
    assert "timeout queue 500ms" in section(text, "defaults outer ")
    assert "timeout server 30000ms" in section(text, "defaults outer ")
    assert "timeout server 120500ms" in section(text, "defaults inner")
    assert "hard-stop-after 120500ms" in section(text, "global")
    assert "{ req.hdr_val(content-length) gt 1000 }" in api
    assert "{ sc_http_req_rate(0) gt 25 }" in api


def test_addresses_are_counted_only_where_their_rate_is_limited() -> None:
    assert "stick-table" not in render(config())


def test_token_is_named_and_not_told() -> None:
    text = render(config())

    assert 'set-var proc.authorization str("Bearer ${SUFFUSE_API_TOKEN}")' in section(text, "global")
    assert "http-request del-header authorization" in section(text, "frontend api ")
    assert "authorization" not in render(config(token=False))


def test_port_is_plain_or_tls() -> None:
    plain, tls = render(config()), render(config(certificate=Path("/c.pem")))

    assert section(plain, "frontend api ")[0] == "bind 127.0.0.1:8080"
    assert section(tls, "frontend api ")[0] == (
        "bind 127.0.0.1:8080 ssl crt /c.pem alpn h2,http/1.1 ssl-min-ver TLSv1.2"
    )


def test_ping_wants_an_instance_of_each_model() -> None:
    assert "if { path /ping } { nbsrv(rest_m) gt 0 } { nbsrv(rest_n) gt 0 }" in render(config(models=("m", "n")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ()}, "the balancer got no model; expected at least one"),
        ({"instances": ()}, "the balancer got no instance; expected at least one"),
        ({"models": ("m", "m")}, "model 'm' is given twice to the balancer; expected each once"),
        ({"instances": (A, A)}, "instance 'a' is given twice to the balancer; expected each once"),
        (
            {"models": ("m {",)},
            "model 'm {' cannot be balanced: expected letters, digits, '.', '-' and '_' alone",
        ),
        (
            {"host": "0.0.0.0:80\nuser root"},
            "host '0.0.0.0:80\\nuser root' is none; expected an address, in brackets where it has colons, or a name",
        ),
        (
            {"instances": (replace(A, host="::1"),)},
            "host '::1' is none; expected an address, in brackets where it has colons, or a name",
        ),
        (
            {"certificate": Path("/a b.pem")},
            "/a b.pem: HAProxy takes no path with blanks, quotes, #, $ or \\; choose another",
        ),
        (
            {"run": Path("/" + "x" * 79)},
            f"/{'x' * 79}: 2 characters too long for the sockets that HAProxy puts there; choose a shorter folder",
        ),
    ],
)
def test_what_haproxy_cannot_be_told_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        config(**changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Limits(in_flight=0), "limit in_flight is 0; expected a whole number from 1"),
        (lambda: Limits(queue=-1), "limit queue is -1; expected a whole number from 1"),
        (lambda: Limits(queue_s=0.0), "limit queue_s is 0; expected seconds, from 0.001"),
        (lambda: Limits(client_rate=0.0), "limit client_rate is 0; expected requests a second, from 0.1"),
    ],
)
def test_limit_that_lets_nothing_through_is_refused(make: Callable[[], Limits], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        make()


def test_address_in_brackets_is_none_to_look_up() -> None:
    assert [replace(A, host=host).by_name for host in ("[::1]", "127.0.0.1", "localhost")] == [False, False, True]
