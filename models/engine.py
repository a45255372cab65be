"""CPU inference of model packs by ONNX Runtime: half the time of torch, a tenth of its size.

A network is checked against the pack's own test vector when it is loaded, so a changed runtime
or processor shows before a patient does.
"""

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.pack import (
    TEST_STEP,
    M,
    Manifest,
    Pack,
    PackManifest,
    PackRefused,
    member_file,
    self_test_vectors,
)


class OnnxNetwork:
    """A loaded network; call it with (N, channels, row, column), get (N, classes, row, column)."""

    def __init__(self, weights: Path, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(
            str(weights), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits of a batch."""
        (answer,) = self._session.run(None, {self._input: batch})
        return np.asarray(answer, np.float32)


def members_of(manifest: PackManifest) -> int:
    """Return how many trainings of its network a pack holds."""
    return manifest.members if isinstance(manifest, Manifest) else 1


def load_members(pack: Pack[M], threads: int = 2) -> tuple[OnnxNetwork, ...]:
    """Load all trainings of a pack's network; see `load_network`."""
    return tuple(load_network(pack, threads, n + 1) for n in range(members_of(pack.manifest)))


def load_network(pack: Pack[M], threads: int = 2, member: int = 1) -> OnnxNetwork:
    """Load a pack's network, or one of several trainings of it, and run its self-test.

    Raises
    ------
    PackRefused
        If the network cannot be loaded or answers its test vector differently.
    """
    try:
        network = OnnxNetwork(pack.folder / member_file("weights.onnx", member), threads)
        batch, expected = self_test_vectors(pack, member)
        answer = network(batch)[..., ::TEST_STEP, ::TEST_STEP]
        difference = float(np.abs(answer - expected).max())
    except Exception as error:  # onnxruntime raises classes of its own without a common base
        raise PackRefused(f"{pack.label}: the network does not run here") from error
    if not difference <= pack.manifest.tolerance:
        raise PackRefused(f"{pack.label}: the self-test is off by {difference:.3g}")
    return network
