"""The log posterior as a PyTensor operation: its gradient is one of its own outputs."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import register_funcify_default_op_cache_key

from causalfair.risk import _kernels, _kernels_cells

__all__ = ["WhitenedLogPosterior"]

# PyTensor keeps compiled functions on disk and does not look into the kernel: its key must change
# with the kernel's sources, or an old posterior would be sampled after an update.
SOURCE_KEY = zlib.crc32(
    Path(_kernels.__file__).read_bytes() + Path(_kernels_cells.__file__).read_bytes()
)


class WhitenedLogPosterior(Op):  # type: ignore[misc]
    """Value and gradient of :func:`whitened_log_posterior`; nothing is captured.

    All data are inputs, so that one compiled function serves every data set of the same number of
    coordinates.
    """

    __props__ = ()

    def make_node(self, *inputs: Any) -> Any:
        """Scalar value and gradient vector."""
        tensors = [pt.as_tensor_variable(one) for one in inputs]
        return Apply(self, tensors, [pt.dscalar(), pt.dvector()])

    def perform(self, node: Any, inputs: Any, outputs: Any) -> None:  # noqa: ARG002
        """One call of the kernel."""
        value, gradient = _kernels.whitened_log_posterior(*map(np.ascontiguousarray, inputs))
        outputs[0][0] = np.asarray(value)
        outputs[1][0] = gradient

    def connection_pattern(self, node: Any) -> list[list[bool]]:
        """Only the coordinates have a gradient."""
        return [[True, False]] + [[False, False]] * (len(node.inputs) - 1)

    def L_op(self, inputs: Any, outputs: Any, output_grads: Any) -> list[Any]:  # noqa: N802
        """Gradient of the value, which the second output already holds."""
        rest = [DisconnectedType()() for _ in inputs[1:]]
        return [output_grads[0] * outputs[1], *rest]


@register_funcify_default_op_cache_key(WhitenedLogPosterior)  # type: ignore[no-untyped-call]
def _numba_whitened(op: Any, **_: Any) -> Any:  # noqa: ARG001
    return _kernels.whitened_for_graphs, SOURCE_KEY
