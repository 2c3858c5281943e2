"""Amazon's wire: whose request it is by its signature, errors in each protocol's shape, and moto for what is around.

``front`` hands a signed request to the API of its service; what no API is for (S3, STS, IAM, KMS, logs ...) goes to
moto's WSGI application in this process, which is imported at the first such request.
"""
