"""Reports about jobs: one document with everything about a job, as HTML, Markdown or JSON.

``document`` gathers the `Report`. ``content`` arranges it as ``blocks``, which ``page`` and ``markdown`` write.
"""
