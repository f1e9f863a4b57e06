"""What a stack writes of itself must be read back whole, and anything else be refused with what to do."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from suffuse.balancing.record import FILE, InstanceRecord, StackRecord
from suffuse.errors import InputError

RECORD = StackRecord(
    url="https://127.0.0.1:8080",
    grpc_url="grpcs://127.0.0.1:8080",
    token_file=Path("/s/token"),
    certificate=Path("/c.pem"),
    instances=(
        InstanceRecord("i1", "http://h:1", "grpc://h:2", "http://h:3", None),
        InstanceRecord("i2", "http://h:4", "grpc://h:5", "http://h:6", Path("/k.json")),
    ),
    admin_socket=Path("/s/haproxy/admin.sock"),
    metrics_url="http://h:8/metrics",
    model_store=Path("/store"),
    models=("m", "n"),
    owner_pid=11,
    haproxy_pid=12,
)


@pytest.mark.parametrize("record", [RECORD, replace(RECORD, token_file=None, certificate=None)])
def test_record_is_read_back_from_the_file_and_from_its_folder(tmp_path: Path, record: StackRecord) -> None:
    record.write(tmp_path / FILE)

    assert StackRecord.read(tmp_path / FILE) == StackRecord.read(tmp_path) == record
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_folder_without_a_running_stack_is_refused(tmp_path: Path) -> None:
    path = tmp_path / FILE
    expected = (
        f"{path}: got no record of a running stack (FileNotFoundError: [Errno 2] No such file or directory: "
        f"'{path}'); expected the state folder of a `suffuse serve --instances N` that runs"
    )

    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        StackRecord.read(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"instances": 3}'])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content, "utf-8")

    with pytest.raises(InputError, match=r"stack\.json: got no record of a running stack \("):
        StackRecord.read(tmp_path)


def test_record_of_another_version_is_refused(tmp_path: Path) -> None:
    RECORD.write(tmp_path / FILE)
    content = json.loads((tmp_path / FILE).read_text("utf-8"))
    (tmp_path / FILE).write_text(json.dumps({**content, "more": 1}), "utf-8")

    with pytest.raises(InputError, match="unexpected keyword argument 'more'"):
        StackRecord.read(tmp_path)
