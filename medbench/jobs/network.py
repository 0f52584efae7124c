"""The hub, for checkpoints and data sets alike: its client, and its errors as lines that say what to do. Needs no torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import DryRunFileInfo, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

from medbench.errors import Interrupted, MedbenchError
from medbench.jobs.addresses import masked

TRACKED = False  # how an error is worded is no result

Kind = Literal["model", "dataset"]
_asked: list[bool] = []  # while closed: whether the user wants to be offline
HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]  # of the HTTP library that the installed client uses


def snapshot(repo: str, revision: str | None, patterns: list[str], kind: Kind = "model", folder: Path | None = None) -> Path:
    """The folder with the files of a repository that match: in the local cache, or `folder`. What is there already is not fetched again.

    Raises MedbenchError when there is no such repository or revision, access is refused, or the hub cannot be reached.
    """
    with errors(repo, revision, kind), _switched(_is_offline()):
        offline = constants.HF_HUB_OFFLINE  # said aloud: some versions of the client else list a pinned commit's files over the network
        found = snapshot_download(
            repo, repo_type=kind, revision=revision, allow_patterns=patterns, local_dir=folder, local_files_only=offline
        )
        return Path(found)


class _Quiet(tqdm):
    """No progress of what takes a second."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **{**more, "disable": True})  # type: ignore[no-untyped-call]


def planned(repo: str, revision: str | None, patterns: list[str], kind: Kind = "model") -> list[DryRunFileInfo]:
    """The files that `snapshot` would bring into the local cache: sizes, and whether they lie there. Raises MedbenchError likewise."""
    with errors(repo, revision, kind), _switched(_is_offline()):
        found = snapshot_download(repo, repo_type=kind, revision=revision, allow_patterns=patterns, dry_run=True, tqdm_class=_Quiet)
    return found if isinstance(found, list) else []


@contextmanager
def closed() -> Iterator[None]:
    """Only `snapshot` reaches the hub meanwhile: a library that follows a name in a configuration gets nothing from there."""
    _asked.append(constants.HF_HUB_OFFLINE)
    try:
        with _switched(True):
            yield
    finally:
        _asked.pop()


def _is_offline() -> bool:
    """Whether the user wants to be."""
    return _asked[-1] if _asked else constants.HF_HUB_OFFLINE


@contextmanager
def offline() -> Iterator[None]:
    """Nothing reaches the hub meanwhile: what is in the local cache is there, and all else is refused."""
    with _switched(True), closed():
        yield


@contextmanager
def _switched(offline: bool) -> Iterator[None]:
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, offline
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def errors(repo: str, revision: str | None, kind: Kind) -> Iterator[None]:
    """What the client raises, as lines that say what to do."""
    where = f"{'checkpoint' if kind == 'model' else 'hub data set'} {repo}"
    page = f"https://huggingface.co/{'' if kind == 'model' else 'datasets/'}{repo}"
    try:
        yield
    except GatedRepoError:
        raise MedbenchError(where, "is gated and access was refused", f"accept its licence at {page}, then `hf auth login`") from None
    except RevisionNotFoundError:
        raise MedbenchError(where, f"has no revision {revision!r}", f"choose one from {page}/commits") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise MedbenchError(where, "is not on the hub, or not visible to you", "fix the name, or `hf auth login`") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        found = f"{f'revision {revision!r} ' if revision else ''}is not in the local cache and the hub cannot be reached"
        remedy = "connect once (`python -m medbench fetch --all RUN` brings all that a run needs), or give a folder"
        raise MedbenchError(where, f"{found}{' (HF_HUB_OFFLINE is set)' if _is_offline() else ''}", remedy) from None
    except HfHubHTTPError as error:
        found = f"the hub answered {_short(error)}"
        raise Interrupted(where, found, "run again: what has arrived is kept; or give a folder") from None
    except (HTTPError, ConnectionError, TimeoutError) as error:
        found = f"the download broke off ({type(error).__name__}: {_short(error)})"
        raise Interrupted(where, found, "run again: what has arrived is kept; or give a folder") from None
    except OSError as error:
        if error.errno is not None:  # the disk
            raise
        found = f"a file did not arrive whole ({_short(error)})"
        raise Interrupted(where, found, "run again: what has arrived is kept; or give a folder") from None


def _short(error: Exception) -> str:
    return masked(error)[:200]
