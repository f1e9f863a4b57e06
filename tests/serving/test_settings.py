"""What TorchServe is told must be what was meant, whatever characters it has; what cannot work is refused at once."""

import json
import re
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffuse.errors import BundleError, ServerError
from suffuse.serving.settings import (
    Archive,
    ServerConfig,
    default_workers,
    effective_properties,
    find_archives,
    read_properties,
    refuse_taken_ports,
)

Ports = Callable[[int], list[int]]
NOOP = Archive("noop.mar", "noop", "1.0", None)


def write_archive(path: Path, *, version: str = "1.0", config: str | None = None) -> Path:
    model = {"modelName": path.stem.partition("-")[0], "modelVersion": version, "handler": "noop.py"}
    with zipfile.ZipFile(path, "w") as members:
        if config is not None:
            model["configFile"] = "model-config.yaml"
            members.writestr("model-config.yaml", config)
        members.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": model}))
    return path


def java_properties(text: str) -> dict[str, str]:
    """Reads as java.util.Properties.load does, character by character; for lines as suffuse writes them."""
    pairs = {}
    for line in text.split("\n"):
        units: list[tuple[str, bool]] = []  # a character, and whether it was escaped
        index = 0
        while index < len(line):
            if line[index] != "\\":
                units.append((line[index], False))
                index += 1
            elif line[index + 1] == "u":
                units.append((chr(int(line[index + 2 : index + 6], 16)), True))
                index += 6
            else:
                units.append(({"t": "\t", "n": "\n", "r": "\r", "f": "\f"}.get(line[index + 1], line[index + 1]), True))
                index += 2
        if ("=", False) in units:  # the only separator in these files, and no blanks around it
            end = units.index(("=", False))
            begin = end + 1
            while units[begin : begin + 1] == [(" ", False)]:
                begin += 1
            pairs["".join(c for c, _ in units[:end])] = "".join(c for c, _ in units[begin:])
    return {
        key: value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") for key, value in pairs.items()
    }


# config.properties


@given(value=st.text())
@settings(deadline=None, max_examples=200)
def test_java_reads_back_any_value(value: str) -> None:
    text = effective_properties(ServerConfig(Path("/store")), [NOOP], {"key": value})

    assert text.isascii()
    assert java_properties(text)["key"] == value


@given(value=st.text())
@settings(deadline=None, max_examples=100)
def test_own_reader_reads_back_any_value(value: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "config.properties"
    path.write_text(effective_properties(ServerConfig(Path("/store")), [NOOP], {"key": value}), "ascii")

    assert read_properties(path)["key"] == value


def test_properties_are_read_by_the_rules_of_java(tmp_path: Path) -> None:
    path = tmp_path / "config.properties"
    path.write_text(
        "# a comment=1\n  ! another=1\n\n a = 1 \nb:2\nc 3\nd=x=y\nempty=\nlong=one, \\\n    two\nback=C:\\\\tmp\n"
        "odd\\=key=\\u00fc\\t.\n",
        "utf-8",
    )

    assert read_properties(path) == {
        "a": "1",
        "b": "2",
        "c": "3",
        "d": "x=y",
        "empty": "",
        "long": "one, two",
        "back": "C:\\tmp",
        "odd=key": "ü\t.",
    }


def test_missing_properties_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.properties"
    expected = (
        f"{path}: cannot be read as TorchServe's configuration ([Errno 2] No such file or directory: {str(path)!r})"
    )

    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        read_properties(path)


def test_config_of_suffuse_is_the_default_and_keeps_keys_on() -> None:
    properties = read_properties(ServerConfig(Path("store")).config)

    expected = {"disable_token_authorization": "false", "install_py_dep_per_model": "false"}
    assert {key: properties[key] for key in expected} == expected


def test_addresses_models_and_store_come_from_the_config() -> None:
    config = ServerConfig(Path("/store"), host="10.0.0.1", inference_port=1, management_port=2, metrics_port=3)
    other = Archive("b.mar", "b", "2.0", 1)

    told = java_properties(effective_properties(config, [NOOP, other], {"model_store": "/elsewhere", "kept": "x"}))

    assert told == {
        "kept": "x",
        "model_store": "/store",
        "allowed_urls": "file:///store/.*",
        "load_models": "noop.mar,b.mar",
        "default_workers_per_model": "1",
        "inference_address": "http://10.0.0.1:1",
        "management_address": "http://127.0.0.1:2",
        "metrics_address": "http://10.0.0.1:3",
        "grpc_inference_address": "10.0.0.1",
        "grpc_inference_port": "7070",
        "grpc_management_address": "127.0.0.1",
        "grpc_management_port": "7071",
    }


def test_server_without_authorization_tells_torchserve_so() -> None:
    base = {"disable_token_authorization": "false"}

    told = effective_properties(ServerConfig(Path("/store"), authorization=False), [NOOP], base)

    assert "disable_token_authorization=true" in told.splitlines()


@pytest.mark.parametrize("store", ["/store", "/a.b (c)/st+re", "/with, comma", "/ü"])
def test_archives_load_from_the_model_store_alone(store: str) -> None:
    base = {"allowed_urls": "https?://.*"}

    told = java_properties(effective_properties(ServerConfig(Path(store)), [NOOP], base))["allowed_urls"]

    patterns = told.split(",")  # as TorchServe does
    assert len(patterns) == 1
    assert re.fullmatch(patterns[0], f"file://{store}/noop.mar")
    for url in ("https://example.org/noop.mar", "file:///etc/noop.mar", f"file://{store}x/noop.mar"):
        assert not re.fullmatch(patterns[0], url)


@pytest.mark.parametrize(("properties", "workers"), [({}, 1), ({"default_workers_per_model": "3"}, 3)])
def test_workers_of_a_model_that_does_not_say(properties: dict[str, str], workers: int) -> None:
    assert default_workers(properties) == workers


@pytest.mark.parametrize("value", ["0", "-1", "auto", ""])
def test_number_of_workers_that_is_none_is_refused(value: str) -> None:
    expected = f"config.properties: default_workers_per_model is {value!r}; expected a whole number from 1"

    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        default_workers({"default_workers_per_model": value})


# Archives


def test_archive_says_its_model_version_workers_and_batch_size(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "noop.mar", version="2.0", config="minWorkers: 3\nbatchSize: 16\n")

    assert Archive.open(path) == Archive("noop.mar", "noop", "2.0", 3, 16)


@pytest.mark.parametrize("config", [None, "", "maxBatchDelay: 2\n"])
def test_archive_need_not_say_its_workers_or_batch_size(tmp_path: Path, config: str | None) -> None:
    assert Archive.open(write_archive(tmp_path / "noop.mar", config=config)) == NOOP


def test_all_stands_for_every_archive(tmp_path: Path) -> None:
    for name in ("b.mar", "a.mar"):
        write_archive(tmp_path / name)

    assert [archive.file for archive in find_archives(ServerConfig(tmp_path))] == ["a.mar", "b.mar"]


def test_archive_that_a_roll_out_has_put_aside_is_not_served(tmp_path: Path) -> None:
    for name in ("a.mar", ".a-2.0.mar"):
        write_archive(tmp_path / name)

    assert [archive.file for archive in find_archives(ServerConfig(tmp_path))] == ["a.mar"]


@pytest.mark.parametrize("spelling", [lambda _: "a", lambda _: "a.mar", lambda store: str(store / "a.mar")])
def test_archive_is_named_with_or_without_folder_and_ending(tmp_path: Path, spelling: Callable[[Path], str]) -> None:
    for name in ("a.mar", "b.mar"):
        write_archive(tmp_path / name)

    found = find_archives(ServerConfig(tmp_path, models=(spelling(tmp_path), "a")))

    assert [archive.file for archive in found] == ["a.mar"]


def test_archive_from_elsewhere_is_refused(tmp_path: Path) -> None:
    expected = f"../a.mar: got an archive from elsewhere; expected one in the model store {tmp_path}"

    with pytest.raises(BundleError, match=f"^{re.escape(expected)}$"):
        find_archives(ServerConfig(tmp_path, models=("../a.mar",)))


def test_empty_model_store_says_how_to_fill_it(tmp_path: Path) -> None:
    expected = (
        f"{tmp_path}: got no .mar file; expected at least one: make it with `suffuse archive BUNDLE --to {tmp_path}`"
    )

    with pytest.raises(BundleError, match=f"^{re.escape(expected)}$"):
        find_archives(ServerConfig(tmp_path))


def test_missing_archive_names_those_that_are_there(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.mar")
    expected = f"{tmp_path / 'b.mar'}: no such archive; the folder's archives: a.mar"

    with pytest.raises(BundleError, match=f"^{re.escape(expected)}$"):
        find_archives(ServerConfig(tmp_path, models=("b",)))


def test_two_archives_of_one_version_are_refused(tmp_path: Path) -> None:
    for name in ("m-old.mar", "m-new.mar"):
        write_archive(tmp_path / name)
    expected = (
        f"{tmp_path}: m-new.mar and m-old.mar both hold version 1.0 of model 'm'; expected one archive a version: "
        "remove one, or name those to serve"
    )

    with pytest.raises(BundleError, match=f"^{re.escape(expected)}$"):
        find_archives(ServerConfig(tmp_path))


def test_two_versions_of_one_model_are_served(tmp_path: Path) -> None:
    write_archive(tmp_path / "m-1.mar", version="1")
    write_archive(tmp_path / "m-2.mar", version="2")

    assert [archive.version for archive in find_archives(ServerConfig(tmp_path))] == ["1", "2"]


def text_file(path: Path) -> None:
    path.write_text("no archive", "utf-8")


def empty_archive(path: Path) -> None:
    zipfile.ZipFile(path, "w").close()


def bad_workers(path: Path) -> None:
    write_archive(path, config="minWorkers: many\n")


def bad_yaml(path: Path) -> None:
    write_archive(path, config="minWorkers: [\n")


@pytest.mark.parametrize(
    ("write", "kind"),
    [(text_file, "BadZipFile"), (empty_archive, "KeyError"), (bad_workers, "ValueError"), (bad_yaml, "ParserError")],
)
def test_file_that_is_no_archive_is_named(tmp_path: Path, write: Callable[[Path], None], kind: str) -> None:
    path = tmp_path / "a.mar"
    write(path)
    expected = (
        rf"^{re.escape(str(path))}: got a file that TorchServe cannot load \({kind}: [^;]*\); expected a .mar: "
        r"make one with `suffuse archive BUNDLE --to MODEL_STORE`$"
    )

    with pytest.raises(BundleError, match=expected):
        Archive.open(path)


# Ports


def config_on(ports: list[int], host: str = "127.0.0.1") -> ServerConfig:
    return ServerConfig(Path("store"), host=host).at_ports(*ports)


def test_free_ports_pass(free_ports: Ports) -> None:
    config = config_on(free_ports(5))

    refuse_taken_ports(config.listeners)

    with socket.create_server(config.listeners["metrics"]), pytest.raises(ServerError):
        refuse_taken_ports(config.listeners)


def test_taken_port_names_the_process_that_has_it(free_ports: Ports) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        expected = (
            rf"^port {port} \(metrics\) on 127.0.0.1: Address already in use \(process \d+, [^)]+\); stop what listens "
            r"there, or choose another port$"
        )

        with pytest.raises(ServerError, match=expected):
            refuse_taken_ports(config_on([*free_ports(2), port, *free_ports(2)]).listeners)


def test_port_for_two_purposes_is_refused(free_ports: Ports) -> None:
    one, two, three, four = free_ports(4)
    expected = f"port {one} is given for both inference and grpc_inference; expected one for each"

    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        refuse_taken_ports(config_on([one, two, three, one, four]).listeners)


def test_host_of_another_machine_is_refused(free_ports: Ports) -> None:
    ports = free_ports(5)
    expected = f"port {ports[0]} (inference) on 192.0.2.1: Cannot assign requested address; choose another host or port"

    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        refuse_taken_ports(config_on(ports, host="192.0.2.1").listeners)
