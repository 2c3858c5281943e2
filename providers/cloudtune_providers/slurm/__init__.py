"""The back end ``slurm``: jobs of a Slurm cluster that run cloudtune's trainer."""
