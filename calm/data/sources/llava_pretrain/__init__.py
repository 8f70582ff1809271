"""LLaVA's pre-training set: 558K photographs of LAION, CC and SBU with captions by BLIP. Generic pairs of the paper."""

from __future__ import annotations

from calm.data.reading.conversations import ConversationSource


class LlavaPretrain(ConversationSource, about=__file__):
    """Photographs with one caption each; the question that LLaVA puts before it is left out."""

    json = "blip_laion_cc_sbu_558k.json"
    writer = "blip"
    captions = True


SOURCE = LlavaPretrain
