"""The GRU is torch's own, with resets."""

import torch

from hippodrome.mixers.gru import GRU
from hippodrome.testing.mixers import tokens


def test_equals_torch_gru_with_the_same_weights() -> None:
    mixer = GRU(6).double()
    peer = torch.nn.GRU(6, 6, batch_first=True).double()
    with torch.no_grad():
        for mine, theirs in zip(mixer.parameters(), peer.parameters(), strict=True):
            mine.copy_(theirs)
    x, h = tokens(mixer, 3, 11), torch.randn(3, 6, dtype=torch.float64)
    y, state = mixer(x, mixer.init_state(3)._replace(h=h))
    expected, last = peer(x, h[None])
    torch.testing.assert_close(y, expected, atol=1e-14, rtol=1e-12)
    torch.testing.assert_close(state.h, last[0], atol=1e-14, rtol=1e-12)


def test_first_weights_are_spread_as_torch_spreads_them() -> None:
    for parameter in GRU(64).parameters():
        values = parameter.detach()
        assert float(values.abs().max()) <= 64**-0.5
        assert float(values.std()) > 0.8 * 64**-0.5 / 3**0.5
