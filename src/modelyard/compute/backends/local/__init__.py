"""The local backend: instances are processes of this machine. `backend.LocalCompute` is the way in; `docs/architecture/compute.md` the map."""
