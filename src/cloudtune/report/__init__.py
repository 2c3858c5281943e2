"""Reports about jobs: one document with everything about a job, as HTML, Markdown or JSON.

``document`` gathers the `Report`. ``content`` says what is in it, as blocks that ``page`` and ``markdown`` write.
"""
