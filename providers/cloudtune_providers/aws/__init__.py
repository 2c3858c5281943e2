"""What the back ends on Amazon Web Services share: settings, botocore's clients, S3, error translation, name rules."""
