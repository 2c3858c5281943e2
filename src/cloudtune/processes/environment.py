"""The environment of the processes that cloudtune starts: an allow-list, so that no secret is passed on by accident.

A worker, a trainer or a process that checks rows needs the search paths, the locale, the caches and the settings of
CUDA and of the thread pools. It does not need vendor credentials, so it does not get them.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NAMES = frozenset({
    # the system
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "TERM",
    "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX",
    # where caches and state are
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "CLOUDTUNE_HOME",
    # certificates of a company's own authority
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    # models: caches and offline switches
    "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_ENDPOINT",
    "TRANSFORMERS_OFFLINE", "TRANSFORMERS_CACHE", "TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS",
    "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT", "TOKENIZERS_PARALLELISM",
    "MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_",
})  # fmt: skip
"""Variables that every child gets."""
PREFIXES = (
    "LC_", "PYTHON", "CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_", "NCCL_", "GLOO_", "HIP_", "HSA_", "ROCR_", "ROCM_",
    "OMP_", "KMP_", "MKL_", "OPENBLAS_", "NUMEXPR_", "VECLIB_", "TORCH_", "TORCHINDUCTOR_", "PYTORCH_", "TRITON_",
)  # fmt: skip
"""Families of variables that every child gets, except those whose name indicates a secret."""
HUB_NAMES = frozenset({
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "http_proxy", "https_proxy", "all_proxy", "no_proxy",
})  # fmt: skip
"""Variables that a child gets only if its model comes from the hub: the token, and proxies, whose URL may hold one."""
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|(^|_)(API_?)?KEY(_|$)|AUTH")


def child_environment(
    environ: Mapping[str, str] | None = None, *, also: Iterable[str] = (), hub: bool = False
) -> dict[str, str]:
    """Return what a child process gets of an environment (default: this process's).

    Args:
        environ: The environment to choose from.
        also: Names that the user passes explicitly, whatever their values.
        hub: Whether the child fetches a model from the hub, and so needs its token and the proxies.

    """
    given = os.environ if environ is None else environ
    wanted = NAMES.union(also, HUB_NAMES if hub else ())
    return {
        name: value
        for name, value in given.items()
        if name in wanted or (name.startswith(PREFIXES) and not _SECRET.search(name.upper()))
    }
