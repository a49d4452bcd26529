"""Closes to fields: what exists, what is missing, and the market of a session."""

from __future__ import annotations

import numpy as np
import pytest

from risk.market_data.fields import log_returns_percent, panel_fields, universe_fields


def test_a_return_is_the_log_ratio_in_percent() -> None:
    returns, present = log_returns_percent(np.array([[100.0, 101.0, 100.0]]))
    # 100 ln(1.01) = 0.99503308531681 (published log tables)
    np.testing.assert_allclose(returns, [[0.0, 0.99503308531681, -0.99503308531681]], rtol=1e-12)
    assert present.tolist() == [[False, True, True]]


@pytest.mark.parametrize("missing", [np.nan, 0.0, -5.0, np.inf])
def test_a_missing_close_is_named_in_the_mask_and_not_filled(missing: float) -> None:
    returns, present = log_returns_percent(np.array([[10.0, 11.0, missing, 30.0, 33.0]]))
    assert present.tolist() == [[False, True, False, False, True]]
    assert returns[0, 2] == returns[0, 3] == 0.0
    assert returns[0, 4] == pytest.approx(9.531017980432493)  # 100 ln(1.1)


def test_returns_are_clipped_at_80_percent() -> None:
    returns, present = log_returns_percent(np.array([[1.0, 1000.0, 1.0]]))
    assert returns.tolist() == [[0.0, 80.0, -80.0]]
    assert present[0, 1:].all()


def test_closes_need_two_axes() -> None:
    with pytest.raises(ValueError, match=r"\(instruments, sessions\), not \(3,\)"):
        log_returns_percent(np.ones(3))


def test_the_market_counts_only_who_is_present() -> None:
    returns = np.array([[3.0, 1.0, 0.0], [-1.0, 9.0, 0.0]])
    present = np.array([[True, True, False], [True, False, False]])
    market, rms = universe_fields(returns, present)
    assert market.tolist() == [1.0, 1.0, 0.0]
    np.testing.assert_allclose(rms, [np.sqrt(5.0), 1.0, 0.0])


def test_the_panel_holds_the_fields_in_order() -> None:
    returns, present = np.array([[1.0, 0.0]]), np.array([[True, False]])
    panel = panel_fields(returns, present, np.array([2.0, 3.0]), np.array([4.0, 5.0]))
    assert panel.dtype == np.float32
    assert panel.tolist() == [[[1.0, 2.0, 4.0, 1.0], [0.0, 3.0, 5.0, 0.0]]]
