"""The back end ``ssh``: a machine that is reached through OpenSSH and runs cloudtune's trainer."""
