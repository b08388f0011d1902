"""A small package that answers to the names which handlers import from TorchServe; written from its documented contract.

Handlers say `from ts.torch_handler.base_handler import BaseHandler`. Where TorchServe is installed, its own package is used.
Source: https://docs.pytorch.org/serve/custom_service.html
"""

__version__ = "0.12.0+modelyard"
