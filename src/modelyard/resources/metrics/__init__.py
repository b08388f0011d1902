"""Numbers that runs report: their history, their last and best values, and runs side by side."""
