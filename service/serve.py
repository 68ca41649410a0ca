"""`python launch.py serve`: makes the first API key, says where the service is, and serves."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
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
from service.services import Services
from service.settings import ServiceSettings, read_settings

USER_MISTAKE = 2
SECRETS = re.compile(r"(tadpole_[a-z0-9]+_)[A-Za-z0-9]+|(/storage/u/)[^\s\"?]+|(whsec_)[A-Za-z0-9+/=]+")


class MaskSecrets(logging.Filter):
    """No key, signed URL or webhook secret reaches a log."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        masked = mask(message)
        if masked != message:
            record.msg, record.args = masked, ()
        return True


def mask(text: str) -> str:
    return SECRETS.sub(lambda found: (found[1] or found[2] or found[3]) + "***", text)


def main(argv: Sequence[str]) -> int:
    """Serve until somebody stops it; the exit code."""
    try:
        settings = read_settings(argv)
    except UserError as error:
        for message in error.messages:
            print(f"error: {message}", file=sys.stderr)
        return USER_MISTAKE
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
    app = create_app(settings)
    greet(app.state.services)
    uvicorn.Server(uvicorn.Config(app, log_config=None, server_header=False, proxy_headers=False)).run([listener])
    return 0


def listen(settings: ServiceSettings) -> socket.socket:
    """The socket, so that a second service on the port stops before it touches the first one's jobs."""
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    if os.name != "nt":  # there, it would share the port with whoever has it
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((settings.host, settings.port))
    listener.listen(1024)
    return listener


def greet(services: Services) -> None:
    """Where the service is; on the first start also its key, which is shown this once."""
    settings = services.settings
    print(f"The training service is at {settings.url} and keeps its data in {settings.data_dir}", flush=True)
    if not services.keys.any_exist():
        key = services.keys.create(services.keys.project(FIRST_PROJECT), "first key")
        print(f"Your API key, which is shown only now: {key}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
