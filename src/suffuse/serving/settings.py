"""What one TorchServe is to serve and where, and how TorchServe itself is told: its config.properties."""

import errno
import json
import re
import socket
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import yaml

from suffuse.bundle import MANIFEST, Manifest, check_digest
from suffuse.errors import BundleError, ServerError
from suffuse.serving.process import mark_of

_OWN_PROPERTIES = Path(__file__).with_name("config.properties")
_DEFAULT_WORKERS = "default_workers_per_model"

# The syntax of java.util.Properties.
_COMMENT = re.compile(r"^[ \t\f]*[#!].*$", re.MULTILINE)
_CONTINUED = re.compile(r"(?<!\\)((?:\\\\)*)\\\n[ \t\f]*")
_PAIR = re.compile(r"((?:\\.|[^\\=: \t\f])*)[ \t\f]*[=:]?[ \t\f]*(.*)")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


@dataclass(frozen=True)
class ServerConfig:
    """What one TorchServe serves, and where.

    Args:
        model_store: the folder of .mar files.
        models: archives in it, with or without ``.mar``; ``all`` stands for every one.
        config: TorchServe's config.properties, by default the one of suffuse; what this class sets takes precedence.
        workers: workers a model; None leaves it to each archive's model-config.yaml.
        threads: threads a worker, which handlers find in SUFFUSE_THREADS; None shares the cores among the workers that
            are started. Where an autoscaler adds workers later, give the cores divided by the most workers.
        host: address of the inference and metrics ports.
        management_host: address of the management ports, on which whoever holds the key can run code.
        inference_port: REST.
        management_port: REST.
        metrics_port: Prometheus.
        grpc_inference_port: gRPC.
        grpc_management_port: gRPC.
        authorization: whether the ports ask for a key; False is for ports that nobody else reaches.
        state: a private folder for keys, logs, sockets and unpacked archives; None is .suffuse/serve-<inference_port>.
        ready_timeout_s: time limit for all workers to load their models, in seconds.
    """

    model_store: Path
    models: tuple[str, ...] = ("all",)
    config: Path = _OWN_PROPERTIES
    workers: int | None = None
    threads: int | None = None
    host: str = "127.0.0.1"
    management_host: str = "127.0.0.1"
    inference_port: int = 8080
    management_port: int = 8081
    metrics_port: int = 8082
    grpc_inference_port: int = 7070
    grpc_management_port: int = 7071
    authorization: bool = True
    state: Path | None = None
    ready_timeout_s: float = 180.0

    def at_ports(
        self, inference: int, management: int, metrics: int, grpc_inference: int, grpc_management: int
    ) -> "ServerConfig":
        """The same at other ports."""
        return replace(
            self,
            inference_port=inference,
            management_port=management,
            metrics_port=metrics,
            grpc_inference_port=grpc_inference,
            grpc_management_port=grpc_management,
        )

    @property
    def listeners(self) -> dict[str, tuple[str, int]]:
        """Host and port by purpose."""
        return {
            "inference": (self.host, self.inference_port),
            "management": (self.management_host, self.management_port),
            "metrics": (self.host, self.metrics_port),
            "grpc_inference": (self.host, self.grpc_inference_port),
            "grpc_management": (self.management_host, self.grpc_management_port),
        }


@dataclass(frozen=True)
class Archive:
    """A .mar file and what it says of itself; `workers` is None where it does not say how many.

    `batch_size` is in rows.
    """

    file: str
    model: str
    version: str
    workers: int | None
    batch_size: int = 1

    @classmethod
    def open(cls, path: Path) -> "Archive":
        """Read an archive's manifest and model-config.yaml, and compare the bundle in it with its digests.

        Raises:
            BundleError: it is missing, no archive, or a file in it is altered; the file is named.
        """
        try:
            with zipfile.ZipFile(path) as members:
                model = json.loads(members.read("MAR-INF/MANIFEST.json"))["model"]
                config = yaml.safe_load(members.read(model["configFile"])) if model.get("configFile") else {}
                _check_bundle(path, members)
            config = config or {}
            workers = config.get("minWorkers")
            return cls(
                path.name,
                model["modelName"],
                str(model["modelVersion"]),
                None if workers is None else int(workers),
                int(config.get("batchSize", 1)),
            )
        except FileNotFoundError:
            have = ", ".join(sorted(other.name for other in path.parent.glob("*.mar"))) or "none"
            raise BundleError(f"{path}: no such archive; the folder's archives: {have}") from None
        except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError, AttributeError, yaml.YAMLError) as error:
            raise BundleError(
                f"{path}: got a file that TorchServe cannot load ({type(error).__name__}: {error}); expected a .mar: "
                "make one with `suffuse archive BUNDLE --to MODEL_STORE`"
            ) from error


def _check_bundle(path: Path, members: zipfile.ZipFile) -> None:
    if MANIFEST not in members.namelist():
        return  # TorchServe serves archives that others made, too
    text = members.read(MANIFEST).decode("utf-8", errors="replace")
    for name, digest in Manifest.from_json(text, f"{path}: {MANIFEST}").files.items():
        with members.open(name) as file:
            check_digest(f"{path}: {name}", file, digest)


def find_archives(config: ServerConfig) -> tuple[Archive, ...]:
    """The archives to serve.

    Raises:
        BundleError: there are none, one is missing, unreadable or elsewhere, or two hold the same model and version.
    """
    store = config.model_store
    # A file whose name begins with a dot is there for a roll-out that is under way.
    every = sorted(path for path in store.glob("*.mar") if not path.name.startswith("."))
    paths = every if config.models == ("all",) else [_in_store(store, m) for m in config.models]
    if not paths:
        raise BundleError(
            f"{store}: got no .mar file; expected at least one: make it with `suffuse archive BUNDLE --to {store}`"
        )
    archives: dict[tuple[str, str], Archive] = {}
    for archive in map(Archive.open, dict.fromkeys(paths)):
        other = archives.setdefault((archive.model, archive.version), archive)
        if other is not archive:  # TorchServe would serve one of them and not say which
            raise BundleError(
                f"{store}: {other.file} and {archive.file} both hold version {archive.version} of model "
                f"{archive.model!r}; expected one archive a version: remove one, or name those to serve"
            )
    return tuple(archives.values())


def read_properties(path: Path) -> dict[str, str]:
    """The keys and values of a config.properties, by the rules of java.util.Properties.

    Raises:
        ServerError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ServerError(f"{path}: cannot be read as TorchServe's configuration ({error})") from error
    lines = _CONTINUED.sub(r"\1", _COMMENT.sub("", text)).split("\n")
    pairs = [_PAIR.fullmatch(line.strip(" \t\f")) for line in lines]
    return {_unescape(pair[1]): _unescape(pair[2]) for pair in pairs if pair and pair[0]}


def default_workers(properties: Mapping[str, str]) -> int:
    """Workers of a model whose archive does not say how many.

    Raises:
        ServerError: the setting is no number from 1. TorchServe's own default, one a core, is not supported.
    """
    value = properties.get(_DEFAULT_WORKERS, "1")
    if not value.isdecimal() or int(value) < 1:
        raise ServerError(f"config.properties: {_DEFAULT_WORKERS} is {value!r}; expected a whole number from 1")
    return int(value)


def effective_properties(config: ServerConfig, archives: Sequence[Archive], base: Mapping[str, str]) -> str:
    """The text of the file that TorchServe reads: `base`, overlaid by what `config` sets."""
    store = config.model_store.absolute()
    # A comma would start another pattern. Without this line, TorchServe loads code from any address it is sent.
    allowed = "file://" + re.escape(str(store)).replace(",", ".") + "/.*"
    ours = {"model_store": str(store), "allowed_urls": allowed, "load_models": ",".join(a.file for a in archives)}
    ours[_DEFAULT_WORKERS] = str(default_workers(base))
    if not config.authorization:
        ours |= {"disable_token_authorization": "true"}
    for purpose, (host, port) in config.listeners.items():
        if purpose.startswith("grpc_"):
            ours |= {f"{purpose}_address": host, f"{purpose}_port": str(port)}
        else:
            ours[f"{purpose}_address"] = f"http://{host}:{port}"
    return "".join(f"{key}={_escape(value)}\n" for key, value in {**base, **ours}.items())


def refuse_taken_ports(listeners: Mapping[str, tuple[str, int]]) -> None:
    """Find out now, not from a log, that a port cannot be had.

    Args:
        listeners: host and port by purpose.

    Raises:
        ServerError: it names the port and, where they can be seen, the process that has it and whose that is.
    """
    purposes: dict[int, str] = {}
    for purpose, (host, port) in listeners.items():
        if (other := purposes.setdefault(port, purpose)) != purpose:
            raise ServerError(f"port {port} is given for both {other} and {purpose}; expected one for each")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                why = error.strerror or error
                advice = "choose another host or port"
                if error.errno == errno.EADDRINUSE:
                    why, advice = f"{why}{_listener(port)}", "stop what listens there, or choose another port"
                raise ServerError(f"port {port} ({purpose}) on {host}: {why}; {advice}") from error


def _listener(port: int) -> str:
    """Who listens on a port, as far as the system tells."""
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                process = psutil.Process(connection.pid)
                state = mark_of(process)
                whose = f", of the `suffuse serve` with state folder {state}" if state else ""
                return f" (process {process.pid}, {process.name()}{whose})"
    return ""


def _in_store(store: Path, model: str) -> Path:
    path = Path(model if model.endswith(".mar") else f"{model}.mar")
    if len(path.parts) > 1 and path.parent.resolve() != store.resolve():
        raise BundleError(f"{path}: got an archive from elsewhere; expected one in the model store {store}")
    return store / path.name


def _escape(value: str) -> str:
    """For Java, which reads Latin-1, takes a backslash for the start of an escape, and drops blanks before a value."""
    units = value.encode("utf-16-be", "surrogatepass")
    codes = (int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2))
    return "".join(chr(c) if 0x20 < c < 0x7F and c != 0x5C else f"\\u{c:04x}" for c in codes)


def _unescape(text: str) -> str:
    text = _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else _CONTROLS.get(m[2], m[2]), text)
    # An escaped pair of surrogates is one character.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
