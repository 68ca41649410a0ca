"""Which service to ask, and with which key: flags, environment, ~/.tadpole/config.yaml, and the file of Cerebrium's command line."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.errors import UserError

KEY_PREFIX = "tadpole_"
DEFAULT_SERVER = "http://127.0.0.1:8600"
SERVER_VARIABLE, KEY_VARIABLE = "TADPOLE_URL", "TADPOLE_API_KEY"
FILES = (".tadpole/config.yaml", ".cerebrium/config.yaml")  # in the home folder; ours goes first
KEY_NAMES = ("api_key", "dev_api_key")  # Cerebrium's file has either


@dataclass(frozen=True)
class Access:
    """A service's address, without a slash at its end, and the key for it."""

    server: str
    key: str = field(repr=False)


def find_access(server: str | None, key: str | None) -> Access:
    """What was given counts first; UserError if there is no key for this service."""
    stored = [_read(Path.home() / name) for name in FILES]
    address = checked_server(server or os.environ.get(SERVER_VARIABLE) or stored[0].get("server") or DEFAULT_SERVER)
    given = key or os.environ.get(KEY_VARIABLE)
    if given:
        return Access(address, checked_key(given))
    for content in stored:
        found = next((content[name] for name in KEY_NAMES if str(content.get(name, "")).startswith(KEY_PREFIX)), None)
        if found and "server" in content and checked_server(content["server"]) != address:
            raise UserError(f"the stored key is for {content['server']}, not for {address}: give one for it with --api-key")
        if found:
            return Access(address, checked_key(found))
    raise UserError(f"no API key: tadpole login KEY stores one, --api-key or {KEY_VARIABLE} gives it for once")


def checked_server(text: object) -> str:
    """An address such as http://127.0.0.1:8600."""
    address = str(text).strip().rstrip("/")
    scheme, separator, rest = address.partition("://")
    if scheme.lower() not in ("http", "https") or not separator or not rest or "@" in rest or any(sign in rest for sign in " ?#"):
        raise UserError(f"'{address}' is no address of a service: write {DEFAULT_SERVER}, or https://train.example.org")
    return address


def checked_key(text: object) -> str:
    """A key as the service made it. What it does not open, the service says."""
    key = str(text).strip()
    if not key.startswith(KEY_PREFIX) or not key.isascii() or any(sign.isspace() for sign in key):
        raise UserError(f"this is no API key of the service: keys begin with {KEY_PREFIX}, as `tadpole keys create` shows them")
    return key


def remember(access: Access) -> Path:
    """Keep it in our file, readable by its owner only, beside what else stands there."""
    import yaml

    path = Path.home() / FILES[0]
    content = {**_read(path), "server": access.server, "api_key": access.key}
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".config.")  # 0600
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        yaml.safe_dump(content, file, sort_keys=True)
    Path(name).replace(path)
    return path


def _read(path: Path) -> Mapping[str, Any]:
    """The content of a file; nothing where there is none."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read ({reason}): mend or remove it, then tadpole login KEY writes a new one") from None
    if not isinstance(content or {}, dict):
        raise UserError(f"{path}: this is a table such as `api_key: {KEY_PREFIX}...`: mend or remove it")
    return content or {}
