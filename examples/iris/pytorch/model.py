"""The network. Training and serving both import it from here: the archive carries this file."""

import torch
from torch import nn


class IrisNetwork(nn.Module):
    """Four measures in centimetres in, one score per class out."""

    def __init__(self):
        super().__init__()
        # The scaling is a part of the model, so that it takes centimetres when it serves.
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("deviation", torch.ones(4))
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, measures):
        return self.layers((measures - self.mean) / self.deviation)
