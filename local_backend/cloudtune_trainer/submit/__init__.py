"""What back ends import to plan, package and read a run of the trainer. No torch."""
