"""Bedrock's two APIs: customization, import and hosting of models, and inference.

Operations, paths and shapes are those of botocore's service models. The emulator's engine runs the jobs, and files are
in the emulated S3. Facts about the service's behavior are cited where the code relies on them.
"""
