"""The folder of the demo and of the run on real data; one for both where one worker runs both."""

import pytest

from tests.conftest import Clone, make_clone


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone without results."""
    return make_clone(tmp_path_factory.mktemp("smoke") / "clone")
