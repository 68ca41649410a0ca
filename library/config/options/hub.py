"""Options about the Hugging Face hub: what is uploaded there, and a state to go on from."""

from __future__ import annotations

from dataclasses import dataclass

from library.config.declare import option


@dataclass(frozen=True, kw_only=True)
class HubOptions:
    """Uploads to the Hugging Face hub, and resuming from it."""

    huggingface_repo_id: str | None = option(None, "Repository on the hub, owner/name, to which the trained weights are uploaded.")
    huggingface_repo_type: str | None = option(None, "What the repository is: model (left out), dataset or space.")
    huggingface_path_in_repo: str | None = option(None, "Where in the repository uploads go; left out: at its top.")
    huggingface_token: str | None = option(
        None, "Token for the hub; left out: HF_TOKEN, or that of `hf auth login`.", secret=True
    )
    huggingface_repo_visibility: str | None = option(
        None, "Whether a repository that is made is public or private; left out: private."
    )
    save_state_to_huggingface: bool = option(False, "Upload the states as well.")
    resume_from_huggingface: bool = option(False, "resume names a state on the hub: owner/name/path[:revision[:type]].")
    async_upload: bool = option(False, "Upload while the training goes on.")
