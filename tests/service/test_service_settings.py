"""Who wins among default, file, environment and flag; what a mistake is told."""
from __future__ import annotations

import re
from pathlib import Path

import pytest

import service
from library.config.declare import options_of
from library.errors import UserError
from service.settings import ServiceSettings, read_settings


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    (tmp_path / "service.toml").write_text('port = 1\nhost = "0.0.0.0"\nqueued_jobs_per_project = 3\n', encoding="utf-8")
    environment = {"TADPOLE_PORT": "2", "TADPOLE_QUEUED_JOBS_PER_PROJECT": "4", "TADPOLE_DATA_DIR": str(tmp_path)}
    settings = read_settings(["--port", "3"], environment)
    assert (settings.port, settings.queued_jobs_per_project, settings.host) == (3, 4, "0.0.0.0")
    assert settings.running_jobs_per_project == 0


def test_lists_and_switches(tmp_path: Path) -> None:
    argv = ["--data_dir", str(tmp_path), "--devices", "0", "1", "--allow_http"]
    settings = read_settings(argv, {"TADPOLE_ALLOW_PRIVATE_NETS": "127.0.0.0/8,10.0.0.0/8"})
    assert settings.devices == ("0", "1")
    assert settings.allow_http
    assert settings.allow_private_nets == ("127.0.0.0/8", "10.0.0.0/8")


def test_links_and_database_come_from_what_is_said(tmp_path: Path) -> None:
    settings = read_settings(["--data_dir", str(tmp_path), "--port", "9000"], {})
    assert settings.url == "http://127.0.0.1:9000"
    assert settings.database == f"sqlite:///{tmp_path.resolve() / 'service.sqlite3'}"
    argv = ["--public_url", "https://train.example.org/", "--database_url", "postgresql://me@host/name"]
    settings = read_settings(["--data_dir", str(tmp_path), *argv], {})
    assert settings.url == "https://train.example.org"
    assert settings.database == "postgresql+psycopg://me@host/name"


@pytest.mark.parametrize(
    ("argv", "environment", "file", "said"),
    [
        (["--prot", "1"], {}, "", "did you mean"),
        (["--port", "99999"], {}, "", "at most 65535"),
        ([], {"TADPOLE_PORT": "many"}, "", "environment, TADPOLE_PORT: expected a whole number"),
        ([], {}, "prot = 1", 'did you mean "port"'),
        ([], {}, 'port = "1"', "write port = 1"),
        ([], {}, 'executor = "local_"', "local, slurm, ray"),
    ],
)
def test_mistakes_say_where_they_are(argv: list[str], environment: dict[str, str], file: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "service.toml").write_text(file, encoding="utf-8")
    with pytest.raises(UserError) as raised:
        read_settings(["--data_dir", str(tmp_path), *argv], environment)
    assert said in str(raised.value)


def test_every_setting_is_used():
    sources = "\n".join(path.read_text(encoding="utf-8") for path in Path(service.__file__).parent.rglob("*.py"))
    unused = [entry.name for entry in options_of(ServiceSettings) if not re.search(rf"\.{entry.name}\b", sources)]
    assert set(unused) <= {"config"}  # read before there are settings
