"""What it takes to train an LSTM without a framework: layers around it, losses, optimisers.

Decisions:
a) A module has its parameters in one flat buffer, `flat`, of which `params` are views; the object
   its `backward` returns has the gradients in the same layout, also called `flat`. That is all
   that an optimiser and `clip_grad_norm` ask for, so any object with such a buffer, or the buffer
   itself, will do.
b) A loss returns its value and its gradient together: there is no graph to ask for it later.
c) Formulas and defaults are PyTorch's, so that a recipe carries over with its settings.
"""

from fastlstm.training._dropout import Dropout, DropoutGradients
from fastlstm.training._embedding import Embedding, EmbeddingGradients
from fastlstm.training._linear import Linear, LinearGradients
from fastlstm.training._losses import cross_entropy_loss, mse_loss, quantile_loss
from fastlstm.training._optimizers import SGD, Adam, AdamW, HasFlat, clip_grad_norm
from fastlstm.training._schedules import CosineDecay, ExponentialDecay
from fastlstm.training._truncated import Window, gradient_flow, truncated_bptt

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CosineDecay",
    "Dropout",
    "DropoutGradients",
    "Embedding",
    "EmbeddingGradients",
    "ExponentialDecay",
    "HasFlat",
    "Linear",
    "LinearGradients",
    "Window",
    "clip_grad_norm",
    "cross_entropy_loss",
    "gradient_flow",
    "mse_loss",
    "quantile_loss",
    "truncated_bptt",
]
