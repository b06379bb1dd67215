"""A model of one's own: a Llama whose blocks are scaled by a learned gate; docs/adding_a_model.md."""

from dataclasses import dataclass

import flax.linen as nn

from jaxconcepts.models import decoder, llama
from tests.example_experiment import Copying


class GatedBlock(nn.Module):
    """x + gate * (block(x) - x): the gate is 1 at first, a Llama's block (ReZero, arXiv 2003.04887, begins at 0)."""

    config: llama.LlamaConfig

    @nn.compact
    def __call__(self, stream, context, head_edits=None):
        block = llama.Block(self.config)
        nn.share_scope(self, block)  # Its parameters are named as a Llama's.
        after, written = block(stream, context, head_edits)
        gate = self.param("block_gate", nn.initializers.ones, (1,))
        before = context.asked(stream)
        return before + gate.astype(stream.dtype) * (after - before), written


@dataclass(frozen=True)
class GatedLlama(llama.LlamaConfig):
    MODEL_TYPE = "gated_llama"
    CHECKPOINT = llama.LlamaConfig.CHECKPOINT | {"blocks/block_gate": "model.layers.{}.gate"}
    ROLES = (*llama.LlamaConfig.ROLES, ("blocks/block_gate", decoder.Role.WHOLE))

    def block(self):
        return GatedBlock(self)


@dataclass(frozen=True)
class GatedCopying(Copying):
    """The copying task on that model."""

    DEFAULTS = Copying.DEFAULTS | {"model.family": "llama"}

    @classmethod
    def model_of(cls, section, task):
        return GatedLlama(**vars(super().model_of(section, task)))
