"""The Hugging Face hub (HF_ENDPOINT names another): sending files to a repository, and fetching a state to go on from."""
from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.errors import UserError

if TYPE_CHECKING:
    from library.config.options import HubOptions

MOST_WORDS = 300  # letters of the hub's own
WORTH_ANOTHER_TRY = (408, 409, 412, 429)  # of the answers 4xx; the others stay what they are
RESUME_FORM = 'write resume = "owner/name/path/of/the-state", with :revision or :revision:type behind it if need be'


class Hub:
    """One repository, as the options name it."""

    def __init__(self, options: HubOptions):
        from huggingface_hub import HfApi

        self._options = options
        self._api = HfApi(token=options.huggingface_token)
        self._type = options.huggingface_repo_type or "model"
        self._is_open = False
        self.repo_id = options.huggingface_repo_id or ""

    def open(self) -> None:
        """Make the repository if it is not there: private, unless told otherwise."""
        self._api.whoami()  # a repository that is there already tells nothing of a wrong token
        private = self._options.huggingface_repo_visibility != "public"
        sdk = "static" if self._type == "space" else None
        made = self._api.create_repo(self.repo_id, repo_type=self._type, private=private, exist_ok=True, space_sdk=sdk)
        self.repo_id = made.repo_id  # with its owner, who may be left out
        self._is_open = True

    def place(self, path: Path) -> str:
        """Where in the repository a file or folder of this name goes."""
        return "/".join(part for part in ((self._options.huggingface_path_in_repo or "").strip("/"), path.name) if part)

    def send(self, path: Path) -> None:
        """Upload a file or a folder; raises whatever the hub's library raises."""
        if not self._is_open:
            self.open()
        where: dict[str, Any] = {"repo_id": self.repo_id, "repo_type": self._type, "path_in_repo": self.place(path)}
        if path.is_dir():
            self._api.upload_folder(folder_path=path, commit_message=f"Upload {path.name}", **where)
        else:
            self._api.upload_file(path_or_fileobj=path, commit_message=f"Upload {path.name}", **where)

    def command(self, path: Path) -> str:
        """What a person writes to upload it by hand."""
        kind = "" if self._type == "model" else f" --repo-type {self._type}"
        return f'hf upload {self.repo_id} "{path}" "{self.place(path)}"{kind}'

    def reason(self, error: Exception) -> str:
        """The error in one line, without the token."""
        return reason_of(error, self._options.huggingface_token)


def is_final(error: Exception) -> bool:
    """Whether another try would end in the same way: no right, no such repository, a name that cannot be."""
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError

    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return 400 <= status < 500 and status not in WORTH_ANOTHER_TRY
    return isinstance(error, (HFValidationError, LocalTokenNotFoundError))


def check_hub(options: HubOptions) -> None:
    """UserError if the repository's name cannot be one. Asks nobody."""
    if options.huggingface_repo_id:
        from huggingface_hub.utils import HFValidationError, validate_repo_id

        try:
            validate_repo_id(options.huggingface_repo_id)
        except HFValidationError as error:
            raise UserError(f'huggingface_repo_id "{options.huggingface_repo_id}" is no name of a repository: {error}') from error


def fetch_state(resume: str, options: HubOptions) -> Path:
    """The folder of a state on the hub, downloaded into the hub's cache."""
    from huggingface_hub import snapshot_download

    place, _, rest = resume.partition(":")
    revision, _, repo_type = rest.partition(":")
    parts = [part for part in place.split("/") if part]
    if len(parts) < 3 or ".." in parts:
        raise UserError(f'resume "{resume}" names no state on the hub (resume_from_huggingface): {RESUME_FORM}')
    repo_id, path = "/".join(parts[:2]), parts[2:]
    folder = "/".join(path)
    try:
        root = snapshot_download(
            repo_id, repo_type=repo_type or "model", revision=revision or None, allow_patterns=[f"{glob.escape(folder)}/*"],
            token=options.huggingface_token,
        )  # fmt: skip
    except Exception as error:  # the hub's own errors, and those of whichever network library its version uses
        raise UserError(f"resume {resume} cannot be downloaded: {reason_of(error, options.huggingface_token)}") from error
    found = Path(root, *path)
    if not found.is_dir():
        where = f"{repo_id} at {revision}" if revision else repo_id
        raise UserError(f"resume {resume}: {where} has no folder {folder} on the hub; {RESUME_FORM}")
    return found


def reason_of(error: Exception, given: str | None = None) -> str:
    """An error of the hub's library in one line, without the token: the one given, or that of this machine."""
    from huggingface_hub import get_token

    token = given or get_token()  # the second one: of HF_TOKEN or `hf auth login`
    text = " ".join(str(error).split()) or type(error).__name__
    return (text.replace(token, "(the token)") if token else text)[:MOST_WORDS]
