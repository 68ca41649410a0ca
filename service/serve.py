"""`python launch.py serve`: makes the first API key, says where the service is, and serves."""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence

from library.errors import UserError

try:
    import uvicorn

    from service.app import create_app
except ModuleNotFoundError as missing:
    sys.exit(f"error: the service needs {missing.name}: pip install -r requirements-service.txt")

from service.keys import FIRST_PROJECT
from service.masking import MaskSecrets
from service.services import Services
from service.settings import ServiceSettings, read_settings
from service.storage.space import means_full
from service.training.first_models import EMBEDDED, write_first_models

USER_MISTAKE = 2
NO_ROOM = 1
KEEP_ALIVE_SECONDS = 75  # longer than clients pause that ask again and again: what is sent as a connection is closed gets no answer
STOP_SECONDS = 5  # that requests get to end when the service stops; who follows a log would stay for ever


def main(argv: Sequence[str]) -> int:
    """Serve until somebody stops it; the exit code."""
    try:
        settings = read_settings(argv)
    except UserError as error:
        return tell(error)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.addFilter(MaskSecrets())
    try:
        listener = listen(settings)
    except OSError as error:
        place = f"{settings.host}, port {settings.port}"
        print(f"error: nothing can listen at {place} ({error.strerror}): name another --port", file=sys.stderr)
        return USER_MISTAKE
    settings = dataclasses.replace(settings, port=listener.getsockname()[1])
    try:
        app = create_app(settings)
        greet(app.state.services, app.state.background.executor.statement)
    except UserError as error:
        return tell(error)
    except Exception as error:
        if not means_full(error):
            raise
        print(f"error: the disk of {settings.data_dir}, or of the database, is full: make room, and start again", file=sys.stderr)
        return NO_ROOM
    gc.collect()
    gc.freeze()  # what is there by now stays: to look through it for garbage takes 0.1 s, in which nobody is answered
    config = uvicorn.Config(
        app, log_config=None, server_header=False, proxy_headers=False, timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )  # fmt: skip
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn takes them over, ends well, and then sends them to who had them before
        signal.signal(number, lambda _number, _frame: None)
    uvicorn.Server(config).run([listener])
    return 0


def tell(error: UserError) -> int:
    for message in error.messages:
        print(f"error: {message}", file=sys.stderr)
    return USER_MISTAKE


def listen(settings: ServiceSettings) -> socket.socket:
    """The socket, so that a second service on the port stops before it touches the first one's jobs."""
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    if os.name != "nt":  # there, it would share the port with whoever has it
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((settings.host, settings.port))
    listener.listen(1024)
    return listener


def greet(services: Services, statement: str) -> None:
    """Where the service is; on the first start also its key, which is shown this once, and a base model to begin with."""
    settings = services.settings
    print(f"The training service is at {settings.url} and keeps its data in {settings.data_dir}; {statement}", flush=True)
    print(f"Its page: open {settings.url} in a browser, and sign in with an API key", flush=True)
    if services.keys.any_exist():
        return
    key = services.keys.create(services.keys.project(FIRST_PROJECT), "first key")
    print(f"Your API key, which is shown only now: {key}", flush=True)
    if settings.models_file is None and write_first_models(services.workshop.models_file):
        print(f"Base models are named in {services.workshop.models_file}; so far {EMBEDDED}, a tiny one for trials", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
