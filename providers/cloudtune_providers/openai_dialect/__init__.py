"""The API dialect that OpenAI and Azure OpenAI share: files, uploads, fine-tuning jobs, chat.

``responses`` and ``errors`` are pure translations, ``requests`` and ``rules`` create and check requests, ``sdk_client``
has the SDK's client, ``files`` and ``jobs`` make the calls. No host or vendor is named here: the back ends provide the
URL, the limits, and the marks by which a job is recognized.
"""
