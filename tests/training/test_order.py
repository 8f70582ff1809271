"""Which samples a step sees depends on seed and step alone, and an epoch sees each once."""

from __future__ import annotations

import pytest

from calm.training.loop.order import Order


@pytest.mark.parametrize("count, batch", [(10, 4), (7, 7), (3, 8), (1, 5), (12, 3)])
def test_every_epoch_covers_every_sample_once(count: int, batch: int) -> None:
    order = Order(count, batch, 17, "test")
    steps = 3 * count  # a whole number of epochs: 3 * batch of them
    seen = [sample for step in range(steps) for sample in order(step)]
    for epoch in range(3 * batch):
        assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_a_step_does_not_depend_on_the_steps_before() -> None:
    forwards = Order(10, 4, 17, "test")
    steps = [forwards(step) for step in range(20)]
    for step in (19, 3, 11, 0):
        assert Order(10, 4, 17, "test")(step) == steps[step]
        assert forwards(step) == steps[step]


def test_epochs_seeds_and_runs_are_shuffled_differently() -> None:
    order = Order(50, 50, 17, "test")
    draws = [order(0), order(1), Order(50, 50, 18, "test")(0), Order(50, 50, 17, "other")(0), list(range(50))]
    assert len({tuple(draw) for draw in draws}) == len(draws)


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(ValueError, match="test: there is nothing to train on"):
        Order(0, 4, 17, "test")


def test_samples_of_like_length_share_a_batch_and_none_is_lost() -> None:
    lengths = [5] * 90 + [80] * 10
    order = Order(100, 5, 17, "test", lengths)
    batches = [order(step) for step in range(20)]
    assert sorted(sample for batch in batches for sample in batch) == list(range(100))
    mixed = [batch for batch in batches if len({lengths[sample] for sample in batch}) > 1]
    assert len(mixed) <= 2  # one a pool at most: two pools
    assert Order(100, 5, 17, "test", lengths)(7) == batches[7]
    first = [batch for batch in batches if lengths[batch[0]] == 80]
    assert first != batches[-len(first) :], "batches are shuffled"
