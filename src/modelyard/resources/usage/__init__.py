"""What running instances use: cores, memory, disk and GPUs, over time."""
