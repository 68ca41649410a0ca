"""The commands of `tadpole`, and how it ends: 0, 1 where the service says no or a training failed, 2 where you can mend it."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

try:
    import typer
except ModuleNotFoundError:
    sys.exit("error: tadpole needs typer: pip install -r requirements-service.txt")

from library import __version__
from library.errors import UserError
from service.cli import jobs, server, training
from service.cli.access import find_access, remember
from service.cli.forms import Asked, add
from service.cli.remote import Failed, Remote
from service.cli.show import tell_fields, tell_json

DONE, REFUSED, USER_MISTAKE = 0, 1, 2
# What typer raises for a command line: click's ClickException, or that of the copy of click which newer releases have inside.
UNREADABLE: type[Exception] = typer.BadParameter.__mro__[2]
PLAIN: dict[str, object] = {
    "no_args_is_help": True,
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
}

app = typer.Typer(name="tadpole", help="Train diffusion models on a training service.", **PLAIN)  # type: ignore[arg-type]
keys_app = typer.Typer(help="API keys, on the machine of the service.", **PLAIN)  # type: ignore[arg-type]
jobs_app = typer.Typer(help="Jobs on the service.", **PLAIN)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Login(Asked):
    words: Annotated[list[str] | None, typer.Argument(metavar="API_KEY", show_default=False)] = None


def login(asked: Login) -> None:
    """Store an API key. It is kept, with the service that it is for, in ~/.tadpole/config.yaml."""
    words = asked.words or []
    if len(words) > 1 or (words and asked.api_key):
        raise UserError("give one API key: write login KEY")
    given = next(iter(words), None) or asked.api_key
    if not given:
        raise UserError("the API key is missing: write login KEY")
    access = find_access(asked.server, given)
    with Remote(access) as remote:
        account = remote.get("/v1/account")
    path = remember(access)
    found = {"server": access.server, "project": account["username"], "file": str(path)}
    if asked.json:
        tell_json(found)
    else:
        tell_fields(found)


add(app, "login", Login, login)
add(app, "train-diffuser", training.TrainDiffuser, training.train_diffuser)
add(app, "train", training.Train, training.train)
add(app, "download-model", jobs.DownloadModel, jobs.download_model)
add(app, "get-most-recent-jobs", jobs.MostRecentJobs, jobs.get_most_recent_jobs)
add(app, "check-job-status", jobs.CheckJobStatus, jobs.check_job_status)
add(app, "get-training-jobs", jobs.TrainingJobs, jobs.get_training_jobs)
add(app, "get-training-logs", jobs.TrainingLogs, jobs.get_training_logs)
add(jobs_app, "cancel", jobs.Cancel, jobs.cancel)
add(keys_app, "create", server.CreateKey, server.create_key)
add(keys_app, "list", server.OnServer, server.list_keys)
add(keys_app, "revoke", server.RevokeKey, server.revoke_key)
app.add_typer(jobs_app, name="jobs")
app.add_typer(keys_app, name="keys")
everything = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}  # they are serve's own
app.command("serve", context_settings=everything, add_help_option=False)(server.serve)


@app.callback(invoke_without_command=True)
def begin(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if version:
        print(f"tadpole {__version__}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked; the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console of Windows has not every letter of a prompt
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = app(words, prog_name="tadpole", standalone_mode=False)
        sys.stdout.flush()
    except UserError as error:
        return _tell(*error.messages, code=USER_MISTAKE)
    except Failed as error:
        return _tell(str(error), code=REFUSED)
    except typer.Abort:
        return _tell("interrupted", code=REFUSED)
    except UNREADABLE as error:
        return _tell(_usage(error), code=USER_MISTAKE)
    except ModuleNotFoundError as error:
        return _tell(f"this needs {error.name}: pip install -r requirements-service.txt", code=REFUSED)
    except BrokenPipeError:  # `tadpole ... | head`
        _give_up_output()
        return REFUSED
    except OSError as error:
        _give_up_output()
        return _tell(" ".join(str(error).split()), code=REFUSED)
    return code if isinstance(code, int) else DONE


def _usage(error: Exception) -> str:
    """Of a group without a command, the message is all of its help, which stays as it is."""
    format_message = getattr(error, "format_message", None)
    text = format_message() if format_message else str(error)
    return text if text.lstrip().startswith("Usage:") else " ".join(text.split())


def _give_up_output() -> None:
    """If nothing can be written any more, Python should not try it once more at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell(*messages: str, code: int) -> int:
    for message in messages:
        print(message if message.lstrip().startswith("Usage:") else f"error: {message}", file=sys.stderr)
    return code
