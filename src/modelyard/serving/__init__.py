"""The model server: the Open Inference and TensorFlow Serving protocols over one model. Imports nothing of the platform."""
