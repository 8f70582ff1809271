"""Random streams depend on their seed and names alone."""

import numpy as np

from calm.seeds import derive, stream


def test_known_values_never_change() -> None:
    # A change here would change every drawn edit, split and text of every run.
    assert derive(17) == 9169633106970650612
    assert derive(17, "guidance", "tilt") == 6085025655985162619
    assert stream(17, "x").integers(1000, size=3).tolist() == [780, 521, 884]


def test_names_are_kept_apart() -> None:
    seeds = [derive(1, "ab", "c"), derive(1, "a", "bc"), derive(1, "abc"), derive(1, "c", "ab"), derive(2, "ab", "c")]
    assert len(set(seeds)) == len(seeds)
    assert derive(1, "1") != derive(1, 1)


def test_seeds_fit_in_63_bits() -> None:
    seeds = [derive(index, "size") for index in range(500)]
    assert 0 <= min(seeds) and max(seeds) < 2**63
    assert max(seeds) > 2**62


def test_a_stream_repeats_itself_and_differs_from_its_neighbour() -> None:
    first, again, other = (stream(3, "item", name).uniform(size=8) for name in ("a", "a", "b"))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
