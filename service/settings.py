"""The settings of the service: defaults < service.toml < environment (TADPOLE_*) < flags of `serve`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from library.config.declare import Option, option, options_of
from library.config.spelling import did_you_mean
from library.config.text_files import read_toml
from library.config.tool import read_tool_flags
from library.config.values import value_from_file, value_from_flag
from library.errors import UserError

PREFIX = "TADPOLE_"
SETTINGS_FILE = "service.toml"


@dataclass(frozen=True)
class ServiceSettings:
    """The training service: takes jobs over four web APIs, trains them one after the other, and keeps the models."""

    data_dir: Path = option(Path("tadpole-data"), "The folder of everything the service keeps: database, uploads, jobs, models.")
    config: Path | None = option(None, "A .toml file with these settings; without it service.toml in data_dir, where there is one.")
    host: str = option("127.0.0.1", "The address to listen at; 0.0.0.0 serves the network, which should then see HTTPS in front of it.")
    port: int = option(8600, "The port to listen at.", least=0, most=65535)
    public_url: str | None = option(None, "What clients reach the service by, such as https://train.example.org; all links begin with it.")
    database_url: str | None = option(None, "postgresql://user:password@host/name instead of SQLite in data_dir.")
    executor: str = option("local", "What runs the jobs: processes on this machine, Slurm, or Ray.", choices=("local", "slurm", "ray"))
    slurm_options: tuple[str, ...] = option((), 'More for sbatch, such as "partition=gpu" "mem=32G"; without the dashes.')
    ray_address: str = option("http://127.0.0.1:8265", "The address of Ray's dashboard.")
    gpus_per_process: int = option(0, "How many GPUs Slurm or Ray gives each process of a job.", least=0)
    devices: tuple[str, ...] = option((), "The GPUs that jobs may use, such as 0 1; without it all that there are, else the CPU.")
    running_jobs: int = option(0, "How many jobs run at a time; 0: as many as there are devices.", least=0)
    running_jobs_per_project: int = option(0, "How many jobs of a project run at a time; 0: any number.", least=0)
    queued_jobs_per_project: int = option(10, "How many jobs of a project may wait; one more is refused with 429.", least=1)
    creates_per_minute: int = option(600, "How many POSTs a key may send in a minute.", least=1)
    calls_per_minute: int = option(3000, "How many other requests a key may send in a minute.", least=1)
    allow_http: bool = option(False, "URLs that clients name (pictures, webhooks) may be http, not only https.")
    allow_private_nets: tuple[str, ...] = option((), "Networks that such URLs may lead to although they are private, such as 10.0.0.0/8.")
    allow_ports: tuple[str, ...] = option((), "Ports that such URLs may name besides 80 and 443.")
    trainers: Path | None = option(None, "The folder of installed trainer packages; without it trainers in data_dir.")
    templates: Path | None = option(None, "The folder of further templates for packages; without it templates in data_dir.")
    controlnet: Path | None = option(None, "A ControlNet as a Diffusers folder, for packages of the template controlnet.")
    models_file: Path | None = option(None, "The .toml file of base models that jobs may name; without it models.toml in data_dir.")
    store: str | None = option(None, "s3://bucket/prefix instead of files in data_dir. Keys come from AWS_* variables.")
    store_endpoint: str | None = option(None, "The address of an S3-compatible server that is not Amazon's.")
    max_upload_mib: int = option(2048, "The largest upload.", least=1)
    disk_reserve_gib: float = option(1.0, "What uploads and results leave free on the disk: database and logs need it.", least=0)
    job_hours: float = option(24.0, "How long a job may run.", least=0.01)
    job_disk_gib: float = option(100.0, "How large a job's folder may grow.", least=0.1)
    cog_python: Path | None = option(None, "The Python of an environment with cog, for predictions; without it that of launch.py serve.")
    prediction_device: str | None = option(None, "The GPU that predictions run on; without it the first that jobs may use.")
    prediction_seconds: float = option(600.0, "How long a prediction may take.", least=1)
    prediction_idle_seconds: float = option(300.0, "A model that nobody has asked for so long leaves the memory.", least=1)
    sandbox: str = option("auto", "Run jobs in bubblewrap: where it is there, always, or never.", choices=("auto", "always", "never"))
    cancel_grace_seconds: float = option(30.0, "What a canceled job gets to end by itself before it is killed.", least=0)
    keep_inputs_days: float = option(30.0, "Uploaded pictures of jobs that are over are deleted after this time.", least=0)
    keep_logs_days: float = option(90.0, "Logs and sample pictures of jobs that are over are deleted after this time.", least=0)
    keep_files_hours: float = option(24.0, "Files of the files API, and predictions, are deleted after this time.", least=0)

    @cached_property
    def url(self) -> str:
        """Where clients find the service: no slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (self.public_url or f"http://{host}:{self.port}").rstrip("/")

    @cached_property
    def database(self) -> str:
        """What SQLAlchemy opens."""
        if self.database_url:
            return self.database_url.replace("postgresql://", "postgresql+psycopg://", 1).replace("postgres://", "postgresql+psycopg://", 1)
        return f"sqlite:///{self.data_dir / 'service.sqlite3'}"

    @property
    def disk_reserve_bytes(self) -> int:
        return int(self.disk_reserve_gib * 2**30)

    @property
    def jobs_dir(self) -> Path:
        return self.data_dir / "jobs"


_DECLARED: dict[str, Option] = {entry.name: entry for entry in options_of(ServiceSettings)}


def read_settings(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> ServiceSettings:
    """The settings that flags, environment and file give; UserError with all mistakes of the first of them that has any."""
    flags = read_tool_flags(ServiceSettings, argv)
    values = {**_from_environment(os.environ if environment is None else environment), **flags}
    named = values.get("config")
    file = named or Path(values.get("data_dir", _DECLARED["data_dir"].default), SETTINGS_FILE)
    if named or file.is_file():
        values = {**_from_file(file), **values}
    values["data_dir"] = Path(values.get("data_dir", _DECLARED["data_dir"].default)).expanduser().resolve()
    return ServiceSettings(**values)


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values, mistakes = {}, []
    for name, entry in _DECLARED.items():
        written = environment.get(PREFIX + name.upper())
        if written is not None:
            try:
                values[name] = value_from_flag(entry, written.replace(",", " ").split() if entry.kind.many else written)
            except ValueError as error:
                mistakes.append(f"environment, {PREFIX}{name.upper()}: {error}")
    if mistakes:
        raise UserError(*mistakes)
    return values


def _from_file(path: Path) -> dict[str, Any]:
    values, mistakes = {}, []
    for name, written in read_toml(path, "settings file of the service").items():
        if name not in _DECLARED or name == "config":
            mistakes.append(f"{path}, {name}: unknown setting{did_you_mean(name, _DECLARED)}")
            continue
        try:
            values[name] = value_from_file(_DECLARED[name], written)
        except ValueError as error:
            mistakes.append(f"{path}, {name}: {error}")
    if mistakes:
        raise UserError(*mistakes)
    return values
