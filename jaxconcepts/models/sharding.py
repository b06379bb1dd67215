"""Where each parameter lies on a mesh, by its role."""

from __future__ import annotations

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from jaxconcepts.models.decoder import Decoder, Role

# Matrices that read the stream are split by their outputs, those that write to it by their inputs, tables by words.
AXES = {
    Role.TABLE: ("model", None),
    Role.READS: (None, None, "model"),
    Role.HEADS: (None, "model", None),
    Role.WRITES: (None, "model", None),
    Role.NORM: (),
    Role.WHOLE: (),
}


def path_of(path) -> str:
    """A tree path as text: "blocks/q/kernel"."""
    return "/".join(key.key for key in path)


def specs(model: Decoder, mesh: Mesh, shapes: PyTree) -> PyTree:
    """A NamedSharding for every leaf of `shapes`, from its role.

    An axis that the mesh lacks, or that does not divide the dimension, is left out: the parameter is whole along it.
    Raises ValueError naming a parameter that has no role.
    """

    def spec(path, leaf):
        fits = lambda axis, size: axis in mesh.shape and size % mesh.shape[axis] == 0  # noqa: E731
        axes = AXES[model.role(path_of(path))]
        axes = [axis if fits(axis, size) else None for axis, size in zip(axes, leaf.shape, strict=False)]
        return NamedSharding(mesh, PartitionSpec(*axes))

    return jax.tree_util.tree_map_with_path(spec, shapes)


def auto_mesh(mesh: Mesh | None) -> Mesh:
    """The mesh with axes that the compiler propagates through; None is the first device alone."""
    if mesh is None:
        return Mesh([jax.devices()[0]], ("data",), axis_types=(AxisType.Auto,))
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))


def shard_batch(array, params: PyTree):
    """The array's first axis split over "data" of the parameters' mesh, whole where it does not divide."""
    sharding = getattr(jax.tree.leaves(params)[0], "sharding", None)
    if not isinstance(sharding, NamedSharding):
        return array
    data = sharding.mesh.shape.get("data", 1)
    axis = "data" if "data" in sharding.mesh.shape and array.shape[0] % data == 0 else None
    return jax.device_put(array, NamedSharding(sharding.mesh, PartitionSpec(axis)))
