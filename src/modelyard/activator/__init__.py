"""The waiting room for requests to models that rest: holds them until a model server is there. Standard library only."""
