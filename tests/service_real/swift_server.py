"""OpenStack Swift with its S3 API on this machine: four servers and memcached in a temporary folder. It checks signatures and expiry."""
from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.service_real.slurm_cluster import free_ports

PROGRAMS = ("swift-ring-builder", "swift-account-server", "swift-container-server", "swift-object-server", "swift-proxy-server", "memcached")
PACKAGES = "apt-get install swift-account swift-container swift-object swift-proxy memcached"
KINDS = ("account", "container", "object")
ACCESS_KEY, SECRET_KEY, REGION = "test:tester", "testing", "us-east-1"
GLOBAL_CONFIG = Path("/etc/swift/swift.conf")  # the servers look nowhere else
START_SECONDS = 90.0
# The times are long, as nothing here makes good later what took longer: a listing would stay wrong, one disk has no other in reserve.
STORAGE = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = root
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
container_update_timeout = 60
conn_timeout = 60
node_timeout = 60
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
PROXY = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = root
swift_dir = {folder}
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck proxy-logging cache listing_formats bulk s3api tempauth copy slo dlo proxy-logging proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
conn_timeout = 60
node_timeout = 60
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memcached}
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
location = {region}
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""


class Swift:
    """One replica on one device. What lies on its disk and what it lists are asked here directly, not through our code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._servers: list[subprocess.Popen[bytes]] = []
        self.endpoint = ""

    def start(self) -> None:
        missing = [program for program in PROGRAMS if shutil.which(program, path=_path()) is None]
        assert not missing, f"{', '.join(missing)} not found: {PACKAGES}"
        assert os.getuid() == 0, "Swift's servers are started as root"
        (self.folder / "devices" / "d1").mkdir(parents=True)
        os.setxattr(self.folder, "user.tadpole", b"1")  # OSError: this file system has no room for what Swift notes of objects
        if not GLOBAL_CONFIG.exists():
            GLOBAL_CONFIG.parent.mkdir(exist_ok=True)
            GLOBAL_CONFIG.write_text("[swift-hash]\nswift_hash_path_prefix = a\nswift_hash_path_suffix = b\n", encoding="utf-8")
        proxy, memcached, *storage = free_ports(2 + len(KINDS))
        self._start("memcached", "-u", "root", "-l", "127.0.0.1", "-p", str(memcached))
        for kind, port in zip(KINDS, storage, strict=True):
            self._build_ring(kind, port)
            self._start(f"swift-{kind}-server", self._config(kind, STORAGE, kind=kind, port=port), "--verbose")
        values = {"port": proxy, "memcached": memcached, "region": REGION, "secret": SECRET_KEY}
        self._start("swift-proxy-server", self._config("proxy", PROXY, **values), "--verbose")
        self.endpoint = f"http://127.0.0.1:{proxy}"
        for port in (memcached, *storage, proxy):
            self._wait_for(port)

    def _build_ring(self, kind: str, port: int) -> None:
        for words in (("create", "4", "1", "1"), ("add", f"r1z1-127.0.0.1:{port}/d1", "1"), ("rebalance",)):
            command = ["swift-ring-builder", str(self.folder / f"{kind}.builder"), *words]
            built = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": _path()})
            assert built.returncode < 2, built.stdout + built.stderr  # 1 is a warning

    def _config(self, name: str, text: str, **values: object) -> str:
        path = self.folder / f"{name}-server.conf"
        path.write_text(text.format(folder=self.folder, **values), encoding="utf-8")
        return str(path)

    def _start(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.log").open("wb") as log:
            self._servers.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "PATH": _path()}))

    def _wait_for(self, port: int) -> None:
        end = time.monotonic() + START_SECONDS
        while True:
            assert all(server.poll() is None for server in self._servers), self.logs()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                assert time.monotonic() < end, self.logs()
                time.sleep(0.1)
            else:
                return

    def logs(self) -> str:
        return "\n".join(f"{path.name}: {path.read_text(encoding='utf-8', errors='replace')}" for path in sorted(self.folder.glob("*.log")))

    def stop(self) -> None:
        for server in self._servers:
            server.terminate()
        for server in self._servers:
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()

    def client(self) -> Any:
        """boto3's own client, set up apart from ours."""
        import boto3
        from botocore.client import Config

        config = Config(signature_version="s3v4", s3={"addressing_style": "path"}, request_checksum_calculation="when_required")
        keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY, "region_name": REGION}
        return boto3.client("s3", endpoint_url=self.endpoint, config=config, **keys)

    def listed(self, bucket: str) -> dict[str, int]:
        """The objects of a bucket, as the server lists them: key and size."""
        found = self.client().list_objects_v2(Bucket=bucket)
        return {entry["Key"]: entry["Size"] for entry in found.get("Contents", [])}

    def on_disk(self, content: bytes) -> bool:
        """Whether the server has a file of exactly this content."""
        files = (self.folder / "devices" / "d1" / "objects").rglob("*.data")
        return any(path.stat().st_size == len(content) and path.read_bytes() == content for path in files)


@contextmanager
def swift_server(folder: Path) -> Iterator[Swift]:
    swift = Swift(folder)
    try:
        swift.start()
        yield swift
    finally:
        swift.stop()


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"
