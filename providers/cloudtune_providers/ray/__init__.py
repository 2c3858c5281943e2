"""Ray clusters: cloudtune's trainer as jobs of the Ray Jobs API."""
