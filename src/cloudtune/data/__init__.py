"""The data room: any file becomes canonical records, checked, split and fingerprinted, and any back end's format."""

from cloudtune.data.checking import CheckReport, check, convert
from cloudtune.data.dataset import Dataset
from cloudtune.data.encoding import Encoded, encode
from cloudtune.data.preparing import prepare

__all__ = ["CheckReport", "Dataset", "Encoded", "check", "convert", "encode", "prepare"]
