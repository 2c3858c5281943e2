"""AWS requests: routing by signature, errors in each protocol's shape, and moto for the supporting services.

``routing`` passes a signed request to the API of its service. Services without an API here (S3, STS, IAM, KMS, logs
...) go to moto's WSGI application in this process, which is imported at the first such request.
"""
