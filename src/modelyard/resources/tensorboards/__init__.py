"""TensorBoards: views of what trainings write, started when somebody looks."""
