"""An exported folder as a repository on the hub."""

import os
from pathlib import Path
from typing import Any

from isara.errors import RunError
from isara.marks import clean

_MOST_SAID = 200  # characters of what the hub says


def push(folder: Path, name: str, private: bool = True) -> str:
    """Uploads a folder in one commit to a repository, which is made where it is absent; the commit's address.

    Raises:
        RunError: The name is none, nobody is logged in, or the hub refuses or can't be reached.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    bases: tuple[Any, ...] = HfHubHTTPError.__bases__  # what its client raises where there is no connection
    try:
        api = huggingface_hub.HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=name, folder_path=str(folder), commit_message="Upload with isara export")
    except HFValidationError:
        raise RunError(f"expected a name such as owner/model for the hub, found {name!r}: mend it") from None
    except (LocalTokenNotFoundError, HfHubHTTPError, OSError, ValueError, ImportError, *bases) as error:
        # ValueError and ImportError are what its client says of a proxy that it can't use.
        said = clean(" ".join(str(error).split()), _MOST_SAID)
        raise RunError(
            f"{name} could not be pushed to the hub ({said}): log in with `hf auth login`, check the name and the "
            f"network, and push the folder that was written with `hf upload {name} {folder}`"
        ) from error
    return str(getattr(done, "commit_url", done))
