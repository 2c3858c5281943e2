from cloudtune.data.write.row_template import Weave

def rows(
    data: bytes, at: int, pieces: Weave | None, /
) -> tuple[int, bytes, list[bytes], bool, bytes | None, bytes, bytes, bytes, bytes]: ...
