"""The three ways to read a score off the language model, and the likelihood of given answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from calm.model.attention import attending, masked_attention
from calm.model.modeling import CalmForConditionalGeneration

# A score is written "6.5.": its first token is the whole number, and the decimal that follows is on average 0.45.
MEAN_DECIMAL = 0.45
ANSWER_TOKENS = 5  # of a score's text, at most: "6.5." is four, and the token that ends it


def digit_shares(logits: torch.Tensor, digit_token_ids: Sequence[int]) -> torch.Tensor:
    """Probabilities (B, 9) of the digits 1 to 9 among themselves, from the first answer token's logits (B, vocabulary).

    On a scale that reaches 10 the digit 1 stands for itself: means of votes do not reach 10 (AVA's highest is 8.6).
    """
    return logits[:, list(digit_token_ids)[1:10]].float().softmax(-1)


def expectation(shares: torch.Tensor) -> torch.Tensor:
    """Probability-weighted score (B,) from `digit_shares`.

    One forward pass; the decimal is not read, so the value is exact to half a step of the scale.
    """
    digits = torch.arange(1, 10, device=shares.device, dtype=torch.float32)
    return shares @ (digits + MEAN_DECIMAL)


def digit_targets(scores: torch.Tensor, spread: float) -> torch.Tensor:
    """What `digit_shares` should be for scores (B,): a normal distribution of deviation `spread` around each.

    Neighbouring digits are nearly right, which a label that is one digit does not say (You et al., DeQA-Score, CVPR
    2025). NaN where there is no score, and for 10, which no digit stands for.

    Returns:
        (B, 9), each row summing to 1.
    """
    digits = torch.arange(1, 10, device=scores.device, dtype=torch.float32)
    away = (digits + MEAN_DECIMAL - scores.unsqueeze(1)) / spread
    return (-0.5 * away.square()).softmax(-1).masked_fill((scores >= 9.95).unsqueeze(1), torch.nan)


def decimal_targets(scores: torch.Tensor, wholes: torch.Tensor, spread: float) -> torch.Tensor:
    """Shares (B, 10) of the decimals 0 to 9 after the whole numbers (B,), which need not be those of the scores (B,).

    A normal distribution of deviation `spread` around each score: after the 6 of 6.3 the decimal is about 3, after a 5
    rather 9, after a 7 rather 0. NaN where there is no score.
    """
    decimals = torch.arange(10, device=scores.device, dtype=torch.float32) / 10
    away = (wholes.unsqueeze(1) + decimals - scores.unsqueeze(1)) / spread
    return (-0.5 * away.square()).softmax(-1)


def distribution(shares: torch.Tensor) -> torch.Tensor:
    """Shares (B, 10) of the steps 1 to 10 of the scale, from `digit_shares`; their mean is the expectation.

    A digit's decimals reach to the next step, so each digit's share is divided between the two.
    """
    padded = torch.nn.functional.pad(shares, (0, 1))
    return padded * (1 - MEAN_DECIMAL) + padded.roll(1, dims=1) * MEAN_DECIMAL


@torch.inference_mode()
def score_answer(
    model: CalmForConditionalGeneration,
    embeddings: torch.Tensor,
    visual_tokens: torch.Tensor,
    eos_token_id: int,
    point_token_id: int,
    public: int = 0,
    max_tokens: int = ANSWER_TOKENS,
    mirrored_tokens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Read a batch of prompts of one length (B, L, D), each about one photograph, once, then decode greedily.

    In "6.5." every other token is a point, so one is drafted after each token and both are read together. The draft
    counts only if every answer that still goes on has it too: what is written is what greedy decoding writes, in half
    as many passes over the weights.

    Args:
        visual_tokens: (B, tokens, D) of those photographs, which the prompts hold too.
        public: whose score the regression is, a number of `config.publics`.
        mirrored_tokens: of the mirrored photographs, where the model's score reads them.
        max_tokens: of the answer; with 0 there is none, and one pass alone.

    Returns:
        shares of the digits (B, 9), regression (B,), token ids of the answers (B, at most `max_tokens`).
    """
    language_model = model.language_model
    publics = torch.full((len(embeddings),), public)
    shown = {"visual_tokens": visual_tokens, "mirrored_tokens": mirrored_tokens, "publics": publics}
    output = model(inputs_embeds=embeddings, **shown, use_cache=max_tokens > 1, logits_to_keep=1)
    shares = digit_shares(output.logits[:, -1], model.config.digit_token_ids)
    tokens = [output.logits[:, -1].argmax(-1)]
    cache = output.past_key_values
    done = tokens[0] == eos_token_id
    draft = torch.full_like(tokens[0], point_token_id)
    with attending(language_model, masked_attention(language_model)):
        while len(tokens) < max_tokens and not bool(done.all()):
            fed = torch.stack([tokens[-1], draft], dim=1)[:, : max_tokens - len(tokens)]
            read = model(input_ids=fed, past_key_values=cache, use_cache=True, logits_to_keep=fed.shape[1])
            for following in read.logits.argmax(-1).unbind(1):
                tokens.append(following.masked_fill(done, eos_token_id))
                done = done | (tokens[-1] == eos_token_id)
                if bool(done.all()) or bool((tokens[-1] != draft)[~done].any()):
                    break
            # All tokens but the last have been read; a draft that did not come true has been read in vain.
            cache.crop(embeddings.shape[1] + len(tokens) - 1 - cache.get_seq_length())
    assert output.score is not None
    return shares, output.score.float(), torch.stack(tokens, dim=1)[:, :max_tokens]


@torch.inference_mode()
def answer_log_likelihood(
    model: CalmForConditionalGeneration, prompt: torch.Tensor, answers: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Mean log-likelihood per token of every answer after one prompt.

    All are read in one pass, as a tree: what several answers begin with is read once.

    Args:
        prompt: (1, L, D) embeddings.
        answers: token ids of each, at least one.

    Returns:
        (A,)
    """
    beginnings = {tuple(answer[:end]) for answer in answers for end in range(1, len(answer))}
    place = {beginning: number for number, beginning in enumerate([(), *sorted(beginnings)])}
    nodes, length, device = list(place)[1:], prompt.shape[1], prompt.device
    sees = torch.ones(length + len(nodes), length + len(nodes), dtype=torch.bool).tril()
    sees[length:, length:] = False
    for node in nodes:
        before = [length - 1 + place[node[:end]] for end in range(1, len(node) + 1)]
        sees[before[-1], before] = True
    mask = torch.zeros(sees.shape, dtype=prompt.dtype).masked_fill(~sees, torch.finfo(prompt.dtype).min)
    positions = torch.tensor([*range(length), *(length - 1 + len(node) for node in nodes)], device=device)
    language_model = model.language_model
    last = torch.tensor([node[-1] for node in nodes], dtype=torch.long, device=device)
    read = language_model.model(
        inputs_embeds=torch.cat([prompt, language_model.get_input_embeddings()(last).unsqueeze(0)], dim=1),
        attention_mask=mask[None, None].to(device),
        position_ids=positions.unsqueeze(0),
        use_cache=False,
    )
    log_shares = language_model.lm_head(read.last_hidden_state[0, length - 1 :]).float().log_softmax(-1)
    likely = []
    for answer in answers:
        after = [place[tuple(answer[:end])] for end in range(len(answer))]
        likely.append(log_shares[after, list(answer)].mean())
    return torch.stack(likely)
