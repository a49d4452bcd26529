"""The volatility model: its network, its training, its scores and its yearly vintages."""
