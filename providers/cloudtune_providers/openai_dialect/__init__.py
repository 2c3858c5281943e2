"""The wire dialect that OpenAI and Azure OpenAI share: files, uploads, fine-tuning jobs, chat.

``answers`` and ``errors`` are pure translations, ``requests`` and ``rules`` write and check what will be sent, ``wire``
holds the SDK's client, ``files`` and ``jobs`` make the calls. No host and no vendor is named here: the back ends say
where, with which limits, and how a job of theirs is recognised.
"""
