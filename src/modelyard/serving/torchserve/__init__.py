"""The names that handlers of PyTorch archives import from TorchServe's package `ts`; written from its documented contract.

Handlers say `from ts.torch_handler.base_handler import BaseHandler`. `offer` makes that mean this package, in images that do not have
TorchServe itself. The modules' and their public names are therefore TorchServe's, not this house's.
Source: https://docs.pytorch.org/serve/custom_service.html
"""
