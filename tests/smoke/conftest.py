"""One folder for the demo and the run on real data, as a user has: the mini models are pretrained once."""

import pytest

from tests.conftest import Clone, make_clone


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone without results."""
    return make_clone(tmp_path_factory.mktemp("smoke") / "clone")
