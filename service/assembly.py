"""Puts the parts together as the settings say: the store, what may be fetched, what runs jobs."""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import select

from library.errors import UserError
from service.database.engine import Database
from service.database.tables import Job, StoredFile
from service.executors.base import Limits
from service.executors.devices import gpus
from service.intake.addresses import AddressRules
from service.intake.target import FetchRules
from service.jobs.workshop import Workshop
from service.packages.publishing import Publisher
from service.packages.registry import Registry
from service.packages.templates import read_templates
from service.settings import ServiceSettings
from service.storage.local import LocalStore
from service.storage.s3 import S3Store, bucket_of
from service.storage.store import NoSuchObject, Store
from service.trainers import read_trainers
from service.training.class_pictures import ClassPictureCache
from service.training.resolved import Machine

SECRET_BYTES = 32
OLDEST_WITH_BF16 = 8.0  # compute capability


def make_store(settings: ServiceSettings) -> Store:
    """Files in data_dir, or a bucket."""
    if settings.store is None:
        secret = read_secret(settings.data_dir / "secret")
        return LocalStore(settings.data_dir / "store", settings.url, secret, settings.disk_reserve_bytes)
    try:
        return S3Store(bucket_of(settings.store, settings.store_endpoint))
    except ValueError as error:
        raise UserError(f"setting store: {error}") from None


def read_secret(path: Path) -> bytes:
    """What URLs are signed with: made once, whoever comes first, readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.exists():
        return bytes.fromhex(path.read_text(encoding="ascii"))
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    own = Path(name)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(SECRET_BYTES))
    try:
        if os.name == "nt":
            own.rename(path)  # fails where there is one
        else:
            os.link(own, path)
    except FileExistsError:
        pass
    finally:
        own.unlink(missing_ok=True)
    return bytes.fromhex(path.read_text(encoding="ascii"))


def address_rules(settings: ServiceSettings) -> AddressRules:
    """Where URLs that clients name may lead."""
    try:
        ports = (80, 443, *map(int, settings.allow_ports))
    except ValueError:
        raise UserError(f"setting allow_ports: write numbers, not {' '.join(settings.allow_ports)}") from None
    try:
        networks = tuple(ip_network(text) for text in settings.allow_private_nets)
    except ValueError as error:
        raise UserError(f"setting allow_private_nets: {error}; write networks such as 10.0.0.0/8") from None
    return AddressRules(settings.allow_http, ports, networks)


def make_workshop(settings: ServiceSettings, database: Database, store: Store) -> Workshop:
    """What the stages of jobs work with."""
    data = settings.data_dir
    max_bytes = settings.max_upload_mib << 20
    return Workshop(
        jobs_dir=settings.jobs_dir,
        models_file=settings.models_file or data / "models.toml",
        store=store,
        trainers=read_trainers(settings.trainers or data / "trainers"),
        machine=find_machine(),
        cache=ClassPictureCache(data / "class_pictures"),
        rules=FetchRules(address_rules(settings), max_bytes=max_bytes, reserve_bytes=settings.disk_reserve_bytes),
        own_content=lambda job: own_content(settings.url, database, store, job.project_id),
        max_upload_bytes=max_bytes,
        publisher=Publisher(data, read_templates(settings.templates or data / "templates"), Registry(database), settings.controlnet),
        limits=Limits(seconds=settings.job_hours * 3600, folder_bytes=int(settings.job_disk_gib * 2**30)),
    )


def find_machine() -> Machine:
    """What trainings run on, found without torch."""
    if not gpus():
        return Machine()
    has_8bit_adam = importlib.util.find_spec("bitsandbytes") is not None
    return Machine(has_cuda=True, has_bf16=_compute_capability() >= OLDEST_WITH_BF16, has_8bit_adam=has_8bit_adam)


def _compute_capability() -> float:
    """Of the oldest GPU; AMD's that torch runs on have what is asked about here."""
    if shutil.which("nvidia-smi") is None:
        return OLDEST_WITH_BF16
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.split()
    return min((float(text) for text in found if re.fullmatch(r"\d+\.\d+", text)), default=0.0)


def own_content(url: str, database: Database, store: Store, project_id: str) -> Callable[[str], BinaryIO | None]:
    """Opens URLs of ours that lead to the project's own files and uploads, without the network."""
    file_url = re.compile(re.escape(url) + r"/(?:dreambooth/)?v1/files/([a-z0-9]{1,64})(?:/download)?(?:\?.*)?")

    def key_of(asked: str) -> str | None:
        found = file_url.fullmatch(asked)
        with database.reading() as session:
            if found:
                return session.scalar(select(StoredFile.key).where(StoredFile.id == found[1], StoredFile.project_id == project_id))
            key = store.key_of_own_url(asked) if isinstance(store, LocalStore) else None
            if key is None:
                return None
            is_file = session.scalar(select(StoredFile.id).where(StoredFile.key == key, StoredFile.project_id == project_id))
            job_id = key.split("/")[1] if key.startswith("jobs/") else None
            is_input = session.scalar(select(Job.id).where(Job.id == job_id, Job.project_id == project_id))
            return key if is_file or is_input else None

    def open_it(asked: str) -> BinaryIO | None:
        key = key_of(asked)
        try:
            return None if key is None else store.open(key)
        except NoSuchObject:
            return None

    return open_it
