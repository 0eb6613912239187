"""Settings: which source wins, what is refused and how that is told, what is printed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock_server.config import Address, ConfigError, Settings, load, redacted
from penstock_server.model.artifacts import LocalRoot, S3Root
from servers import command

SECRET = "g3heim&nis"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("PENSTOCK_"):
            monkeypatch.delenv(name)


def problems(flags: dict[str, object], file: Path | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(flags, file)
    return caught.value.problems


def test_the_defaults_are_for_this_machine_only() -> None:
    settings = load({}).settings
    assert settings.grpc_address == Address("127.0.0.1", 50051)
    assert settings.http_address == Address("127.0.0.1", 5000)
    assert settings.grpc_address.loopback
    assert settings.database_url is None
    assert settings.data_dir == Path.cwd() / ".penstock"


def test_flags_go_over_environment_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text('workers = 2\ndrain_seconds = 5\nlog_level = "debug"\nmax_message_bytes = "2MiB"\n')
    monkeypatch.setenv("PENSTOCK_CONFIG", str(file))
    monkeypatch.setenv("PENSTOCK_WORKERS", "3")
    monkeypatch.setenv("PENSTOCK_DRAIN_SECONDS", "6")
    loaded = load({"workers": "4"})
    assert (loaded.settings.workers, loaded.settings.drain_seconds, loaded.settings.log_level) == (4, 6, "debug")
    assert loaded.settings.max_message_bytes == 2 * 1024 * 1024
    assert loaded.sources["workers"] == "flag"
    assert loaded.sources["drain_seconds"] == "PENSTOCK_DRAIN_SECONDS"
    assert loaded.sources["log_level"] == str(file)
    assert loaded.sources["log_format"] == "default"


def test_an_empty_variable_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_DATABASE_URL", "")
    assert load({}).settings.database_url is None


def test_all_problems_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text('worker = 2\nlog_level = "loud"\nmax_message_bytes = "100MiB"\n')
    monkeypatch.setenv("PENSTOCK_WORKERS", "many")
    monkeypatch.setenv("PENSTOCK_GRPC_ADRESS", "127.0.0.1:1")
    monkeypatch.setenv("PENSTOCK_URL", "the client's, and not ours to judge")
    told = problems({"http_address": "localhost"}, file)
    assert len(told) == 6
    for expected in (
        "PENSTOCK_GRPC_ADRESS: is no setting; did you mean PENSTOCK_GRPC_ADDRESS?",
        f"worker: is no setting; did you mean workers? ({file})",
        "log_level: must be 'debug', 'info', 'warning' or 'error', found 'loud'",
        "workers: must be a valid integer, unable to parse string as an integer, found 'many' (PENSTOCK_WORKERS)",
        "http_address: must be host:port, such as 127.0.0.1:50051 or [::1]:50051, found 'localhost' (flag)",
        "ingest_buffer_bytes: is 64.0MiB; it must be at least four times max_message_bytes (100.0MiB)",
    ):
        assert any(line.startswith(expected) for line in told), (expected, told)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"grpc_address": "127.0.0.1:5000"}, "grpc_address and http_address: both are 127.0.0.1:5000"),
        ({"grpc_address": "0.0.0.0:5000"}, "grpc_address and http_address: both are"),
        ({"workers": 20}, "workers and database_connections: 20 processes would need up to 360 connections"),
        ({"grpc_address": "127.0.0.1:65536"}, "grpc_address: must be host:port"),
        ({"grpc_address": "::1:5000"}, "grpc_address: must be host:port"),
        ({"artifacts_only": True}, "artifacts_only: needs the database of the server that has the runs"),
        ({"workers": 0}, "workers: must be greater than or equal to 1, found 0"),
        ({"database_url": "mysql://localhost/x"}, "database_url: must be a URL such as postgresql://"),
        (
            {"artifacts_root": "gs://bucket"},
            "artifacts_root: gs: is no kind of store that there is; write a",
        ),
        ({"artifacts_root": "s3://B"}, "artifacts_root: 'B' is no name of a bucket"),
        (
            {"artifacts_root": "E:models"},
            "artifacts_root: 'E:models' is relative to the directory that its drive is",
        ),
        ({"artifacts_mode": "fast"}, "artifacts_mode: must be 'proxied' or 'direct', found 'fast'"),
        ({"artifacts_resume_hours": 0}, "artifacts_resume_hours: must be greater than 0"),
        ({"s3_region": "eu-1"}, "s3_region: artifacts_root is no s3://bucket, so it would do nothing"),
        ({"s3_addressing": "path", "artifacts_root": "/srv"}, "s3_addressing: artifacts_root is no s3://bucket"),
        ({"s3_ca_bundle": "/ca.pem"}, "s3_ca_bundle: artifacts_root is no s3://bucket"),
        ({"s3_kms_key": "k", "artifacts_root": "s3://bucket"}, "s3_kms_key: is for s3_encryption = aws:kms only"),
        (
            {"s3_endpoint": "localhost:9000", "artifacts_root": "s3://bucket"},
            "s3_endpoint: must be http(s)://host:port, without user and query",
        ),
        (
            {"s3_endpoint": f"https://me:{SECRET}@host", "artifacts_root": "s3://bucket"},
            "s3_endpoint: must be http(s)://host:port, without user and query",
        ),
        ({"database_url": "postgresql://localhost:port/x"}, "database_url: must be a URL such as postgresql://"),
    ],
)
def test_a_bad_setting_is_told_with_what_would_be_right(flags: dict[str, object], expected: str) -> None:
    (told,) = problems(flags)
    assert told.startswith(expected)


@pytest.mark.parametrize("text", ["workers = ", "\xff\xfe"])
def test_a_file_that_is_no_toml_is_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "penstock.toml"
    file.write_bytes(text.encode("latin-1"))
    (told,) = problems({}, file)
    assert told.startswith(f"{file}: is not TOML: ")
    (told,) = problems({}, tmp_path / "missing.toml")
    assert told == f"{tmp_path / 'missing.toml'}: cannot be read: No such file or directory"


def test_tables_of_a_file_are_prefixes(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(
        'workers = 2\n[artifacts]\nroot = "s3://bucket/a"\nmode = "direct"\n[s3]\nregion = "eu-1"\n'
        '[s3.kms]\nkey = "k"\n[grpc]\naddress = "[::1]:1"\n'
    )
    loaded = load({"s3_encryption": "aws:kms"}, file)
    settings = loaded.settings
    assert settings.store == S3Root("bucket", "a")
    assert (settings.artifacts_mode, settings.s3_region, settings.s3_kms_key) == ("direct", "eu-1", "k")
    assert settings.grpc_address == Address("::1", 1)
    assert loaded.sources["artifacts_mode"] == str(file)


def test_a_misspelt_key_of_a_table_is_told(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text('[artifacts]\nmod = "direct"\n[database]\nurl = "mysql://x"\n')
    told = problems({}, file)
    assert any(line.startswith(f"artifacts_mod: is no setting; did you mean artifacts_mode? ({file})") for line in told)
    assert any(line.startswith("database_url: must be a URL such as postgresql://") for line in told)
    assert len(told) == 2


def test_artifacts_are_in_the_data_directory() -> None:
    settings = load({"data_dir": "/srv/a b"}).settings
    assert settings.store == LocalRoot("/srv/a b/artifacts")
    assert settings.store.uri() == "file:///srv/a%20b/artifacts"


@pytest.mark.parametrize(
    ("text", "store"),
    [
        ("/srv/artifacts/", LocalRoot("/srv/artifacts")),
        ("/srv/50%25 ü", LocalRoot("/srv/50%25 ü")),
        ("file:///srv/a%20b", LocalRoot("/srv/a b")),
        ("models", LocalRoot(f"{Path.cwd()}/models")),
        ("~/models", LocalRoot(f"{Path.home()}/models")),
        ("s3://bucket/pre/fix/", S3Root("bucket", "pre/fix")),
    ],
)
def test_where_artifacts_are(text: str, store: LocalRoot | S3Root) -> None:
    loaded = load({"artifacts_root": text})
    assert loaded.settings.store == store
    assert f"artifacts_root         {store.uri()}  (flag)" in loaded.lines()


@pytest.mark.skipif(os.name == "nt", reason="there it is one")
@pytest.mark.parametrize(
    "text", ["E:\\models", "E:/models", "file:///E:/models", "\\\\host\\share", "file://host/share"]
)
def test_a_directory_of_windows_is_none_here(text: str) -> None:
    (told,) = problems({"artifacts_root": text})
    assert told.startswith("artifacts_root: is a directory of Windows, and this machine has none, found ")
    assert told.endswith("(flag)")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().workers = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:x@db:5432/penstock", "postgresql://me:***@db:5432/penstock"),
        ("postgresql://me@db/penstock?sslmode=require", "postgresql://me@db/penstock?sslmode=require"),
        ("postgresql://db/penstock?user=me&password=x", "postgresql://db/penstock?user=me&password=***"),
        (
            "postgresql://me:x@/penstock?host=/run/pg&sslpassword=x",
            "postgresql://me:***@/penstock?host=/run/pg&sslpassword=***",
        ),
        ("postgresql://me:a@b@db/penstock", "postgresql://me:***@db/penstock"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert redacted(url) == shown


def test_no_password_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load({"database_url": f"postgresql://me:{SECRET}@db/penstock"})
    for shown in (repr(loaded), str(loaded.settings), "\n".join(loaded.lines()), loaded.settings.model_dump_json()):
        assert SECRET not in shown
    assert loaded.settings.database_url is not None
    assert SECRET in loaded.settings.database_url.get_secret_value()
    for wrong in (
        {"database_url": f"mysql://me:{SECRET}@db/penstock"},
        {"artifacts_root": "s3://bucket", "s3_endpoint": f"https://me:{SECRET}@host"},
        {"artifacts_root": f"s3://me:{SECRET}@bucket"},
    ):
        (told,) = problems(wrong)
        assert SECRET not in told


def test_check_config_prints_settings_and_their_sources(tmp_path: Path) -> None:
    env = {"PENSTOCK_DATABASE_URL": f"postgresql://me:{SECRET}@db/penstock"}
    code, out, err = command("check-config", "--workers", "2", env=env, cwd=tmp_path)
    assert code == 0, err
    assert "workers                2  (flag)" in out
    assert "postgresql://me:***@db/penstock  (PENSTOCK_DATABASE_URL)" in out
    assert SECRET not in out + err
    assert not list(tmp_path.iterdir()), "check-config makes nothing"


def test_check_config_tells_problems_and_exits_with_2(tmp_path: Path) -> None:
    code, out, err = command("check-config", "--workers", "none", "--drain-seconds", "2.9", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert "workers: must be a valid integer" in err
    assert "drain_seconds: must be at least 3, for writers to leave" in err
    assert "Traceback" not in err


def test_help_and_version() -> None:
    code, out, _ = command("--help")
    assert code == 0
    assert all(word in out for word in ("serve", "migrate", "check-config", "doctor", "gc", "PENSTOCK_DATABASE_URL"))
    code, out, _ = command("serve", "--help")
    assert code == 0
    for name in Settings.model_fields:
        assert "--" + name.replace("_", "-") in out
    code, out, _ = command("--version")
    assert (code, out) == (0, "penstock-server 0.1.0\n")
