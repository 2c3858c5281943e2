"""What a model learns: one module for each kind of task."""
