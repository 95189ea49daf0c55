"""The Hugging Face Hub: all that memspan asks of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from huggingface_hub import HfApi, get_token, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

NO_ANSWER: tuple[type[Exception], ...] = (
    OSError,
    *cast(tuple[type[Exception], ...], HfHubHTTPError.__bases__),
)
"""What the HTTP library, whichever it is, raises where the Hub cannot be reached or refuses."""
REPLACED = ["success.png", "training.png", "replay.*", "evaluation.json", "checkpoints/*"]
"""What an earlier push may have left that this one does not write."""


def check_login() -> None:
    """Raises ValueError where nobody is logged in."""
    if get_token() is None:
        raise ValueError("nobody is logged in to the Hugging Face Hub: run `hf auth login`, or set HF_TOKEN")


def upload(folder: Path, repo: str, private: bool, replace: bool) -> str:
    """Uploads a folder; returns the repository's address.

    Args:
        folder: what `pack` wrote.
        repo: OWNER/NAME.
        private: for a new repository: only the owner sees it.
        replace: whether it may exist; its history is kept.

    Raises:
        ValueError: it exists and may not, or the Hub cannot be reached or refuses.
    """
    api = HfApi()
    with _in_one_line(repo):
        try:
            address = str(api.create_repo(repo, private=private, exist_ok=replace))
        except HfHubHTTPError as error:
            if error.response is not None and error.response.status_code == 409:
                raise ValueError(f"{repo}: exists already; choose another name, or give --replace") from None
            raise
        api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message="memspan push",
            delete_patterns=REPLACED,
        )
    return address


def list_files(repo: str, revision: str | None) -> tuple[str, dict[str, int]]:
    """The commit that a revision is, and its files with their bytes.

    Raises:
        ValueError: there is no such repository, or the Hub cannot be reached.
    """
    with _in_one_line(repo):
        info = HfApi().model_info(repo, revision=revision, files_metadata=True)
    return info.sha or "main", {one.rfilename: one.size or 0 for one in info.siblings or ()}


def download(repo: str, commit: str, names: Sequence[str], folder: Path) -> None:
    """Downloads files of a repository into a folder.

    Raises:
        ValueError: the Hub cannot be reached.
    """
    with _in_one_line(repo):
        snapshot_download(repo, revision=commit, allow_patterns=list(names), local_dir=folder)


@contextmanager
def _in_one_line(repo: str) -> Iterator[None]:
    try:
        yield
    except NO_ANSWER as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{repo}: the Hugging Face Hub: {said}") from None
