"""Read files of any supported format into canonical records."""
