"""How the archive answers requests: rows of four measures in, the probabilities of the three classes out."""

import torch
from ts.torch_handler.base_handler import BaseHandler


class IrisHandler(BaseHandler):
    def preprocess(self, data):
        rows = [row.get("data") or row.get("body") if isinstance(row, dict) else row for row in data]
        return torch.as_tensor(rows, dtype=torch.float32, device=self.device)

    def postprocess(self, data):
        return torch.softmax(data, dim=1).tolist()
