"""Measuring: sequences, metrics, anchors, results, BD-rate, plots and the report.

Everything here sees a codec from outside: real files, real decoding, and the same metric functions
for every codec. The conditions and the file format are described in docs/protocol.md.
"""

QUALITIES = (0, 16, 32, 48, 63)
"""Quality indices that a model is measured at unless others are asked for."""
QPS = (22, 27, 32, 37)
"""The qps of the anchors, those of the common test conditions."""
