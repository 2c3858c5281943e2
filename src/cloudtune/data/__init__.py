"""The data room: any file becomes canonical records, checked, split and fingerprinted, and any back end's format."""

from cloudtune.data.preparing import Encoded, encode, prepare

__all__ = ["Encoded", "encode", "prepare"]
