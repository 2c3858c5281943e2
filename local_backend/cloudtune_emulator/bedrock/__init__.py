"""Bedrock's two APIs: customization, import and hosting of models, and asking them.

Operations, paths and shapes are those of botocore's service models; jobs move by the emulator's engine, files lie in
the emulated S3. Facts of the service's behavior are cited where they are relied on.
"""
