"""A PostgreSQL of the tests' own: a fresh cluster, fast and forgetful, gone after them."""
from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.service_real.slurm_cluster import free_ports

USER = "postgres"  # the server refuses to be root
PACKAGES = "apt-get install postgresql"


class Server:
    """One database, `tadpole`, at `url`."""

    def __init__(self, folder: Path) -> None:
        self.folder, (self.port,) = folder, free_ports(1)
        self.url = f"postgresql://{USER}@127.0.0.1:{self.port}/tadpole"
        folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        assert folders, f"there is no PostgreSQL: {PACKAGES}"
        self._programs = folders[-1]
        assert os.getuid() == 0, "the tests are root, and start the server as its own user"

    def start(self) -> None:
        owner = pwd.getpwnam(USER)
        os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        made = self._as_user("initdb", "-D", str(self.folder / "data"), "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
        assert made.returncode == 0, made.stdout + made.stderr
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off -c max_connections=200"
        started = self._as_user("pg_ctl", "-D", str(self.folder / "data"), "-o", options, "-l", str(self.folder / "log.txt"), "-w", "start")
        assert started.returncode == 0, started.stdout + started.stderr
        with psycopg.connect(self.url.replace("/tadpole", "/postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE tadpole")

    def stop(self) -> None:
        self._as_user("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")

    def _as_user(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        runuser = shutil.which("runuser")
        assert runuser, "there is no runuser: apt-get install util-linux"
        with (self.folder / "output.txt").open("w+", encoding="utf-8") as output:  # no pipe: the server would keep it open
            command = [runuser, "-u", USER, "--", str(self._programs / program), *words]
            ended = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, text=True, cwd=self.folder, timeout=300)
            output.seek(0)
            return subprocess.CompletedProcess(command, ended.returncode, output.read(), "")

    def commits(self) -> int:
        """What the server itself counts."""
        return int(self.rows("SELECT xact_commit FROM pg_stat_database WHERE datname = 'tadpole'")[0][0])

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What lies in the database, asked beside the service."""
        with psycopg.connect(self.url) as connection:
            return connection.execute(query, values).fetchall()


@contextmanager
def postgresql_server() -> Iterator[Server]:
    """Not in the folder of the tests: the server's user has to get there, and every pytest that begins forbids it."""
    with tempfile.TemporaryDirectory(prefix="tadpole-postgresql-") as folder:
        server = Server(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
