"""Shared parts of the back ends on AWS: settings, botocore's clients, S3, error translation, name rules."""
