"""
In the place of PyTorch's layers
================================

`fastlstm.torch` has `LSTM`, `GRU` and `RNN` with the arguments, parameters and results of
`torch.nn`'s. In a model that is there, one line changes, and a state dict loads as it did.
"""

import torch

import fastlstm.torch

torch.manual_seed(0)
theirs = torch.nn.LSTM(3, 16, num_layers=2)
ours = fastlstm.torch.LSTM(3, 16, num_layers=2)
ours.load_state_dict(theirs.state_dict())

x = torch.randn(50, 4, 3)
difference = (ours(x)[0] - theirs(x)[0]).abs().max()
print(f"largest difference of the outputs: {difference:.0e}")

# %%
# Gradients flow through autograd, to the same parameters:

for layer in (ours, theirs):
    layer(x)[0].square().mean().backward()
pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
print(f"of the gradients: {max((a.grad - b.grad).abs().max() for a, b in pairs):.0e}")

# %%
# Weights can also leave PyTorch for good. What comes of it needs NumPy only:

from fastlstm import exchange

lstm = exchange.from_torch(theirs)
print(lstm)
print(abs(lstm(x.numpy())[0] - theirs(x)[0].detach().numpy()).max() < 1e-6)
