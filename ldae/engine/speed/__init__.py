# SPDX-License-Identifier: Apache-2.0
"""Precision, compilation, memory, and models that are shared among processes."""
