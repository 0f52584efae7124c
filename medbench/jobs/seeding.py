"""Seeds of every random generator, and kernels that give the same result each time. What is here decides weights and answers."""

import os
import random


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch, and have torch refuse kernels that are not deterministic on a CPU."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    seed_torch(seed)
    if not torch.cuda.is_available():
        _refuse_undetermined()


def seed_torch(seed: int) -> None:
    """Seed torch's generators: `torch.manual_seed` without what that keeps of every call for accelerators that are not here."""
    import torch

    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


def deterministic_kernels() -> None:
    """Have torch compute by kernels alone that sum in a fixed order, on a GPU too; call it before the first of them."""
    import torch

    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # what cuBLAS needs for it
    torch.backends.cudnn.benchmark = False
    _refuse_undetermined()


def _refuse_undetermined() -> None:
    """As `torch.use_deterministic_algorithms(True)`, which sets the compiler too, and imports it for that: longer than torch itself."""
    import torch

    torch.set_deterministic_debug_mode("error")
