"""``tierwise up`` takes models of one task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fakes.task_models import anomaly_folder, embedding_folder
from runtime.errors import ArtifactError
from runtime.messages import Tier
from tierwise.up.plan import check_models


def test_models_of_different_tasks_are_no_hierarchy(tmp_path: Path) -> None:
    odd = anomaly_folder(tmp_path / "e", Tier.EDGE, [1, 1, 1])
    near = embedding_folder(tmp_path / "c", Tier.CLOUD, np.eye(3).tolist())

    with pytest.raises(ArtifactError, match="the task"):
        check_models({"edge": odd, "cloud": near})
